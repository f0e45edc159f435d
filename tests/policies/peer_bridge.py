"""Run by `test_peer.py` under LeRobot's interpreter: policies only LeRobot brings, through this package's registry."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

warnings.simplefilter("ignore")

from lerobot_ray.config.decode import decode  # noqa: E402
from lerobot_ray.config.encode import encode  # noqa: E402
from lerobot_ray.config.optim import AdamConfig  # noqa: E402
from lerobot_ray.config.policy import PolicyConfig  # noqa: E402
from lerobot_ray.core.errors import PolicyError  # noqa: E402
from lerobot_ray.core.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot_ray.policies.blocks import fsdp_wrap_units  # noqa: E402
from lerobot_ray.policies.registry import build_policy, known_policies, policy_class  # noqa: E402

CAMERA, STATE, ACTION = "observation.images.front", "observation.state", "action"
OPTIONS = {
    "tdmpc": {"mlp_dim": 32, "latent_dim": 8, "image_encoder_hidden_dim": 8, "state_encoder_hidden_dim": 16},
    "vqbet": {
        "gpt_input_dim": 32,
        "gpt_output_dim": 32,
        "gpt_hidden_dim": 32,
        "gpt_n_layer": 2,
        "gpt_n_head": 2,
        "crop_shape": None,
        "pretrained_backbone_weights": None,
    },
}
WINDOWS = {"tdmpc": (6, 5), "vqbet": (5, 7)}


def batch(kind: str) -> dict:
    observed, acted = WINDOWS[kind]
    values = {
        CAMERA: torch.rand(2, observed, 3, 64, 64),
        STATE: torch.randn(2, observed, 4),
        ACTION: torch.rand(2, acted, 3) * 2 - 1,
        "next.reward": torch.rand(2, acted),
    }
    masks = {f"{key}_is_pad": torch.zeros(value.shape[:2], dtype=torch.bool) for key, value in values.items()}
    return values | masks | {"index": torch.arange(2), "stream_index": torch.arange(2), "task": ["a", "b"]}


def stats() -> dict:
    shapes = {CAMERA: (3, 1, 1), STATE: (4,), ACTION: (3,)}
    make = {"mean": torch.zeros, "std": torch.ones, "min": lambda s: -torch.ones(s), "max": torch.ones}
    return {key: {name: of(shape) for name, of in make.items()} for key, shape in shapes.items()}


def check(kind: str, folder: Path) -> None:
    config = decode(PolicyConfig, {"type": kind, "device": "cpu", **OPTIONS[kind]})
    assert isinstance(config, PolicyConfig)
    assert config.type == encode(config)["type"] == kind
    assert type(config.get_optimizer_preset()) is AdamConfig
    config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (3,))}
    config.input_features = {
        CAMERA: PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
        STATE: PolicyFeature(FeatureType.STATE, (4,)),
    }
    config.validate_features()

    policy = build_policy(config)
    assert type(policy) is policy_class(kind)
    assert type(policy).__module__.startswith(f"lerobot.policies.{kind}.")
    assert all(policy.get_submodule(name) for name in fsdp_wrap_units(policy))
    preprocessor, postprocessor = config.make_processors(stats())
    ready = preprocessor(batch(kind))
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=1e-3)
    policy.train()
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss, _ = policy.forward(dict(ready))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses))), losses

    for part in (policy, preprocessor, postprocessor):
        part.save_pretrained(folder)
    config.pretrained_path = str(folder)
    again = build_policy(config)
    for name, tensor in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    from safetensors.torch import load_file, save_file

    saved = load_file(folder / "model.safetensors")
    save_file({f"elsewhere.{key}": value for key, value in saved.items()}, folder / "model.safetensors")
    try:
        build_policy(config)
    except (PolicyError, RuntimeError) as error:
        print(kind, losses, type(error).__name__)
    else:
        raise AssertionError("weights that did not arrive went unnoticed")


def main(root: Path) -> None:
    assert "lerobot" not in sys.modules
    assert {"act", "pi05", "smolvla"} <= set(known_policies())
    assert policy_class("act").__module__.startswith("lerobot_ray."), "native policies come first"
    assert "lerobot" not in sys.modules, "and need no lerobot"
    for kind in OPTIONS:
        check(kind, root / kind)
    assert policy_class("pi05").__module__.startswith("lerobot.policies.pi05")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
