"""Weights on disk: safetensors and nothing else, keys and shapes compared before anything is copied.

A pickle runs code when it is opened, so `.bin`, `.pt`, `.pth` and `.ckpt` files are refused by name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.layout import CONFIG_NAME, SHARDED_DIR, WEIGHTS_NAME

logger = logging.getLogger(__name__)

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_COMPILED_PREFIX = "_orig_mod."
_SHOWN_KEYS = 6


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Writes every entry of `state_dict`; of names that share one tensor the first in alphabetical order is kept."""
    kept: dict[tuple, str] = {}
    for name in sorted(state_dict):
        kept.setdefault(_identity(name, state_dict[name]), name)
    tensors = {name: state_dict[name].detach().contiguous().cpu() for name in sorted(kept.values())}
    save_file(tensors, path)


def read_weights(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, or a PolicyError that says what the file is instead."""
    if path.suffix in PICKLE_SUFFIXES:
        raise _pickle_error(path)
    if not path.is_file():
        raise PolicyError(f"{path} does not exist. {_what_is_there(path.parent)}")
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, ValueError) as error:
        raise PolicyError(f"{path} is not a readable safetensors file ({error}). Download or save it again.") from error


def load_weights(policy: nn.Module, path: Path, *, strict: bool = True) -> None:
    """Copies the file into `policy`. Keys or shapes that differ are a PolicyError that names them.

    Not `strict`: missing and unexpected keys are only logged. Other shapes, or no key in common, stay errors.
    """
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    tensors = read_weights(path, device="cpu" if device.type == "meta" else device)
    copy_weights(policy, tensors, source=str(path), strict=strict)


def copy_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, strict: bool = True) -> None:
    """As `load_weights`, from tensors already read; `source` is what an error calls them."""
    # A compiled submodule's keys carry a prefix; a file may be of a run with or without compilation.
    tensors = {name.replace(_COMPILED_PREFIX, ""): tensor for name, tensor in tensors.items()}
    state_dict = module.state_dict()
    full_names = {name.replace(_COMPILED_PREFIX, ""): name for name in state_dict}
    own = {short: state_dict[name] for short, name in full_names.items()}
    found = {_identity(name, own[name]) for name in own.keys() & tensors.keys()}
    missing = [name for name in own if name not in tensors and _identity(name, own[name]) not in found]
    unexpected = [name for name in tensors if name not in own]
    reshaped = [
        f"{name} is {_shape(tensors[name])} in the file, {_shape(own[name])} in the policy"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = [f"{len(reshaped)} of another shape: {_some(reshaped)}"] if reshaped else []
    if missing:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {_some(unexpected)}")
    if reshaped or (problems and (strict or not found)):
        raise PolicyError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}. {_advice(unexpected, reshaped)}"
        )
    if problems:
        logger.warning("%s does not fit %s in all places: %s", source, type(module).__name__, "; ".join(problems))
    with torch.no_grad():
        fitting = {full_names[name]: tensor for name, tensor in tensors.items() if name in own}
        module.load_state_dict(fitting, strict=False)


def weights_file(folder: Path) -> Path:
    """The weights in a policy folder, or a PolicyError that says what the folder holds instead."""
    path = folder / WEIGHTS_NAME
    if path.is_file():
        return path
    pickles = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise _pickle_error(folder / pickles[0])
    raise PolicyError(f"{path} does not exist. {_what_is_there(folder)}")


def _pickle_error(path: Path) -> PolicyError:
    return PolicyError(
        f"{path} is a pickle, which can run code when it is opened. Only {WEIGHTS_NAME} is read: convert it once, "
        f"where you trust it, with safetensors.torch.save_file(torch.load(path, weights_only=True), …)."
    )


def _identity(name: str, tensor: Tensor) -> tuple:
    """The same for two names of one tensor; a meta tensor has no address, an empty one none of its own."""
    if tensor.device.type == "meta" or tensor.numel() == 0 or not hasattr(tensor, "untyped_storage"):
        return (name,)
    storage = tensor.untyped_storage().data_ptr()
    return (storage, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return ", ".join(names[:_SHOWN_KEYS]) + rest


def _advice(unexpected: list[str], reshaped: list[str]) -> str:
    if any(name.startswith(("normalize_inputs.", "unnormalize_outputs.", "normalize_targets.")) for name in unexpected):
        return (
            "The file is of a LeRobot release that kept statistics in the policy; convert it with that project's "
            "migrate_policy_normalization script."
        )
    if reshaped:
        return "Were the features or sizes of the policy changed? Those of the file are in its config.json."
    return "Is the policy's type and config that of the file? Its own is in the config.json beside it."


def _what_is_there(folder: Path) -> str:
    if not folder.is_dir():
        return f"There is no folder {folder}."
    names = sorted(os.listdir(folder))
    adapter = " It holds an adapter: set policy.use_peft=true." if "adapter_model.safetensors" in names else ""
    if (folder.parent / SHARDED_DIR).is_dir():
        return (
            f"The checkpoint holds its weights in parts only (checkpoint_format=dcp): python -m lerobot_ray.convert "
            f"{folder.parent} --output=FOLDER writes a copy with whole files."
        )
    holds = ", ".join(names[:_SHOWN_KEYS]) or "nothing"
    return f"A policy folder holds {CONFIG_NAME} and {WEIGHTS_NAME}; this one holds {holds}.{adapter}"
