"""Where a ResNet's ImageNet weights come from when a policy asks for them by torchvision's name.

Looked for in this order: a file the config names, torchvision's own download cache (there after one LeRobot run), the
Hub, where the timm organisation keeps the same weights as safetensors. Each is checked against the network before use.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from lerobot_ray.core.errors import PolicyError, StorageError, nearest
from lerobot_ray.policies.hub import fetch_file
from lerobot_ray.policies.weights import copy_weights, read_weights

logger = logging.getLogger(__name__)

TORCHVISION_FILES = {
    ("resnet18", "V1"): "resnet18-f37072fd.pth",
    ("resnet34", "V1"): "resnet34-b627a593.pth",
    ("resnet50", "V1"): "resnet50-0676ba61.pth",
    ("resnet50", "V2"): "resnet50-11ad3fa6.pth",
    ("resnet101", "V1"): "resnet101-63fe2227.pth",
    ("resnet101", "V2"): "resnet101-cd907fc2.pth",
    ("resnet152", "V1"): "resnet152-394f9c45.pth",
    ("resnet152", "V2"): "resnet152-f82ba261.pth",
}
"""File names in torchvision's cache. The eight digits begin the file's SHA-256, which is checked."""
HUB_REPOSITORIES = {"V1": "timm/{backbone}.tv_in1k", "V2": "timm/{backbone}.tv2_in1k"}
FLAG = "policy.pretrained_backbone_weights"


def is_weights_path(weights: str) -> bool:
    """Whether `weights` names a file rather than one of torchvision's sets."""
    return "/" in weights or weights.endswith((".safetensors", ".pth"))


def load_backbone_weights(backbone: nn.Module, name: str, weights: str) -> None:
    """Copies ImageNet weights into a `ResNet` called `name`. PolicyError says what to do when they cannot be had."""
    if is_weights_path(weights):
        tensors, source = read_weights(Path(weights).expanduser()), weights
    else:
        tensors, source = _find(name, weights)
    own = backbone.state_dict()
    counters = {key: torch.zeros((), dtype=torch.long) for key in own if key.endswith("num_batches_tracked")}
    unused = ("fc.", *(() if counters else ("num_batches_tracked",)))
    fitting = counters | {key: value for key, value in tensors.items() if not any(part in key for part in unused)}
    copy_weights(backbone, fitting, source=source)
    logger.info("backbone %s starts from %s", name, source)


def check_backbone_weights(name: str, weights: str) -> None:
    """PolicyError when `weights` is neither a file name nor a set torchvision has for the ResNet called `name`."""
    if not is_weights_path(weights):
        _version(name, weights)


def _find(name: str, weights: str) -> tuple[dict[str, Tensor], str]:
    version = _version(name, weights)
    file = TORCHVISION_FILES[name, version]
    cached = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub" / "checkpoints" / file
    if cached.is_file():
        return _read_torchvision(cached), str(cached)
    repository = HUB_REPOSITORIES[version].format(backbone=name)
    try:
        return read_weights(fetch_file(repository, "model.safetensors")), f"{repository} on the Hub"
    except StorageError as error:
        raise PolicyError(
            f"{FLAG}={weights} cannot be had: {cached} does not exist and {repository} cannot be fetched ({error}). "
            f"Put https://download.pytorch.org/models/{file} at that path, or set {FLAG} to a .safetensors file, or to "
            f"null for random weights."
        ) from error


def _version(name: str, weights: str) -> str:
    """ "V1" or "V2" of torchvision's "ResNet18_Weights.IMAGENET1K_V1", "IMAGENET1K_V1", "DEFAULT"."""
    family, _, member = weights.rpartition(".")
    own_family = name.replace("resnet", "ResNet") + "_Weights"
    versions = [version for backbone, version in TORCHVISION_FILES if backbone == name]
    members = {f"IMAGENET1K_{version}": version for version in versions} | {"DEFAULT": versions[-1]}
    if family not in ("", own_family) or member not in members:
        known = [f"{own_family}.{member}" for member in members]
        near = nearest(weights, known) or known[0]
        raise PolicyError(f"{FLAG}={weights} is not a set of weights for {name}. Did you mean {near}?")
    return members[member]


def _read_torchvision(path: Path) -> dict[str, Tensor]:
    """torchvision's file, a pickle: read only if its content is the published one, and then as plain tensors."""
    expected = path.stem.rpartition("-")[2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(expected):
        raise PolicyError(f"{path} is not the file torchvision published (SHA-256 {digest[:8]}…). Delete it.")
    return dict(torch.load(path, map_location="cpu", weights_only=True))
