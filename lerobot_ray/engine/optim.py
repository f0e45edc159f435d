"""Optimizers from their configs: the fused implementation where the device has one, states that LeRobot loads.

Parameters are numbered in the order of the groups that `policy.get_optim_params()` returns; saved states go by those
numbers, so nothing here reorders them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from lerobot_ray.checkpoint.optimizer import IMPLEMENTATION, MAIN, portable
from lerobot_ray.config.optim import (
    AdamConfig,
    AdamWConfig,
    MultiAdamConfig,
    OptimizerConfig,
    SGDConfig,
    XVLAAdamWConfig,
)
from lerobot_ray.core.errors import CheckpointError, ConfigError, PolicyError

FUSED_DEVICES = ("cuda", "cpu", "mps", "xpu")
MULTI_ADAM_DEFAULTS = {"betas": (0.9, 0.999), "eps": 1e-5}
XVLA_VLM_SCALE = 0.1


def build_optimizers(config: Any, params: Any, *, fused: bool | None = None) -> dict[str, torch.optim.Optimizer]:
    """The optimizers by name: one called `main`, or those of `multi_adam` under the policy's names.

    `params` is what `policy.get_optim_params()` returned: parameters, torch parameter groups, or, for `multi_adam`, a
    dict of either. A config that is not ours (a plugin's) builds itself, as in LeRobot.
    """
    if not isinstance(config, OptimizerConfig) and hasattr(config, "build"):
        built = config.build(params)
        return dict(built) if isinstance(built, Mapping) else {MAIN: built}
    if not isinstance(config, MultiAdamConfig):
        return {MAIN: build_optimizer(config, params, fused=fused)}
    if not isinstance(params, Mapping):
        raise PolicyError(
            "optimizer.type=multi_adam needs a policy whose get_optim_params() returns a dict of named parameters; "
            f"this one returns a {type(params).__name__}. Use adam, or the policy's own preset."
        )
    if unknown := sorted(set(config.optimizer_groups) - set(params)):
        raise ConfigError(f"optimizer.optimizer_groups names {unknown}; the policy has {sorted(params)}.")
    return {name: _multi_adam(config, name, group, fused) for name, group in params.items()}


def build_optimizer(config: OptimizerConfig, params: Any, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """One optimizer over `params`. `fused=None` takes the fused implementation wherever torch has it."""
    groups = _xvla_groups(config, params) if isinstance(config, XVLAAdamWConfig) else _groups(params)
    fused = _can_fuse(groups) if fused is None else fused
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused or None}
    if isinstance(config, AdamConfig):
        return torch.optim.Adam(groups, betas=config.betas, eps=config.eps, **common)
    if isinstance(config, (AdamWConfig, XVLAAdamWConfig)):
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, **common)
    if isinstance(config, SGDConfig):
        return torch.optim.SGD(
            groups, momentum=config.momentum, dampening=config.dampening, nesterov=config.nesterov, **common
        )
    raise ConfigError(f"optimizer.type={config.type} has no builder here. Use adam, adamw or sgd.")


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict to save: LeRobot's keys, with torch free to choose the implementation where it is loaded."""
    return portable(optimizer.state_dict())


def load_portable_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Takes a saved state, ours or LeRobot's, and keeps the implementation `optimizer` was built with.

    Group entries the writer's torch did not know keep their fresh values.
    """
    fresh, saved = optimizer.state_dict()["param_groups"], list(state["param_groups"])
    sizes, saved_sizes = [len(group["params"]) for group in fresh], [len(group["params"]) for group in saved]
    if sizes != saved_sizes:
        raise CheckpointError(
            f"the saved optimizer has groups of {saved_sizes} parameters, this policy's has {sizes}. "
            "The checkpoint is of another policy, or other parts of it were trained."
        )
    groups = []
    for group, old in zip(fresh, saved, strict=True):
        kept = {key: tuple(value) if key == "betas" else value for key, value in old.items()}
        groups.append({**group, **kept, **{key: group[key] for key in IMPLEMENTATION if key in group}})
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _groups(params: Any) -> list[dict[str, Any]]:
    """The parameter groups, whichever of torch's forms they came in."""
    if isinstance(params, Mapping):
        params = params.values()
    entries = list(params)
    groups = entries if entries and isinstance(entries[0], Mapping) else [{"params": entries}]
    groups = [{**group, "params": list(group["params"])} for group in groups]
    if not any(group["params"] for group in groups):
        raise PolicyError("the policy has no parameters to train. Unfreeze a part of it.")
    return groups


def _multi_adam(config: MultiAdamConfig, name: str, params: Any, fused: bool | None) -> torch.optim.Optimizer:
    own = config.optimizer_groups.get(name, {})
    defaults = {"lr": config.lr, "weight_decay": config.weight_decay, **MULTI_ADAM_DEFAULTS}
    if unknown := sorted(set(own) - set(defaults)):
        raise ConfigError(f"optimizer.optimizer_groups.{name} has {unknown}; it may have {sorted(defaults)}.")
    terms = {**defaults, **own}
    adam = AdamConfig(**{**terms, "betas": tuple(terms["betas"])}, grad_clip_norm=config.grad_clip_norm)
    return build_optimizer(adam, params, fused=fused)


def _xvla_groups(config: XVLAAdamWConfig, params: Any) -> list[dict[str, Any]]:
    """Three groups by parameter name: the language model at a tenth of the rate, soft prompts at theirs, the rest."""
    if not isinstance(params, Mapping):
        raise PolicyError(
            "optimizer.type=xvla-adamw needs a policy whose get_optim_params() returns a dict from name to parameter."
        )
    prompts = config.soft_prompt_lr_scale
    if config.soft_prompt_warmup_lr_scale is not None:
        prompts = config.soft_prompt_warmup_lr_scale
    scales = {"vlm": XVLA_VLM_SCALE, "soft_prompts": prompts, "other": 1.0}
    members: dict[str, list[Any]] = {name: [] for name in scales}
    for name, parameter in params.items():
        low = name.lower()
        members["vlm" if "vlm" in low else "soft_prompts" if "soft_prompt" in low else "other"].append(parameter)
    return [
        {"params": members[name], "lr": config.lr * scale, "weight_decay": config.weight_decay, "name": name}
        for name, scale in scales.items()
        if members[name]
    ]


def _can_fuse(groups: Iterable[Mapping[str, Any]]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in parameters)
