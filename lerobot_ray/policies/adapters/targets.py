"""Which modules of a policy get an adapter: names checked against the policy before `peft` sees them.

`peft` says nothing about a name that matches no module as long as another one does; here it is an error that names the
nearest module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from lerobot_ray.core.errors import ConfigError, nearest

ALL_LINEAR = "all-linear"


def default_targets(policy: Any) -> tuple[list[str] | str | None, list[str] | None]:
    """(modules with an adapter, modules trained in full) that the policy suggests; None for what it leaves open."""
    suggest = getattr(policy, "_get_default_peft_targets", None)  # LeRobot's policies and plugins
    if callable(suggest):
        found = dict(suggest() or {})
        return found.get("target_modules"), list(found.get("modules_to_save") or []) or None
    return getattr(policy, "adapter_targets", None), list(getattr(policy, "adapter_saved", ())) or None


def checked_targets(policy: nn.Module, targets: Sequence[str] | str, *, saved: Sequence[str]) -> list[str] | str:
    """The targets as `peft` takes them. ConfigError for one that matches nothing, or cannot carry an adapter."""
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        return all_linear(policy, without=saved)
    if isinstance(targets, str):
        return _checked_pattern(policy, targets)
    names = list(targets)
    if not names:
        raise ConfigError("peft.target_modules is an empty list. Name some modules, or leave it out.")
    for name in names:
        found = named_like(policy, name)
        if not found:
            raise ConfigError(_unknown("target_modules", name, policy))
        _refuse_attention(policy, found)
    return names


def check_saved(policy: nn.Module, names: Iterable[str]) -> None:
    """ConfigError for a module to train in full that the policy has not."""
    for name in names:
        if not named_like(policy, name):
            raise ConfigError(_unknown("full_training_modules", name, policy))


def all_linear(policy: nn.Module, *, without: Sequence[str]) -> list[str]:
    """Names of all linear layers, but for those inside attention modules and those that are trained in full."""
    found = [
        name
        for name, module in policy.named_modules()
        if isinstance(module, nn.Linear)
        and _attention_around(policy, name) is None
        and not any(_is_or_is_in(name, other) for other in without)
    ]
    if not found:
        raise ConfigError(f"peft.target_modules={ALL_LINEAR}: {type(policy).__name__} has no linear layers.")
    return found


def named_like(policy: nn.Module, target: str) -> list[str]:
    """The modules that a name means: it is their whole name or its end."""
    return [name for name, _ in policy.named_modules() if name == target or name.endswith(f".{target}")]


def _checked_pattern(policy: nn.Module, pattern: str) -> list[str] | str:
    try:
        found = [name for name, _ in policy.named_modules() if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ConfigError(f"peft.target_modules={pattern} is not a regular expression: {error}.") from error
    if not found and named_like(policy, pattern):  # a single name
        result: list[str] | str = [pattern]
        found = named_like(policy, pattern)
    else:
        result = pattern
    if not found:
        raise ConfigError(_unknown("target_modules", pattern, policy))
    _refuse_attention(policy, found)
    return result


def _unknown(field: str, name: str, policy: nn.Module) -> str:
    modules = [name for name, module in policy.named_modules() if name and next(module.parameters(), None) is not None]
    ends = sorted({module.rsplit(".", 1)[-1] for module in modules if not module.rsplit(".", 1)[-1].isdigit()})
    near = nearest(name, ends) or nearest(name, modules)
    hint = f"Did you mean {near}? " if near else ""
    return (
        f"peft.{field}: {name} is no module of {type(policy).__name__}. {hint}Its modules are called "
        f"{', '.join(ends[:24])}{' …' if len(ends) > 24 else ''}."
    )


def _refuse_attention(policy: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        around = (
            name if isinstance(policy.get_submodule(name), nn.MultiheadAttention) else _attention_around(policy, name)
        )
        if around is not None:
            # Around the whole of it, peft adds the adapter to the base's weights and takes it away again at every step,
            # which moves the base by rounding; of its parts, LeRobot's forward pass calls none.
            raise ConfigError(
                f"peft.target_modules: {around} is a MultiheadAttention of torch, which adapters cannot be put on: it "
                "is computed from its weights without calling its parts, so they would be without effect in LeRobot. "
                "Target the layers beside it (linear1, linear2)."
            )


def _attention_around(policy: nn.Module, name: str) -> str | None:
    parent = name.rpartition(".")[0]
    return parent if parent and isinstance(policy.get_submodule(parent), nn.MultiheadAttention) else None


def _is_or_is_in(name: str, target: str) -> bool:
    return bool(re.fullmatch(rf"(.*\.)?{re.escape(target)}(\..*)?", name))
