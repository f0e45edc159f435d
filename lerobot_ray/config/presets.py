"""The optimizer and the schedule of a run: the policy's preset, with what the user gave applied on top.

LeRobot drops what the user gave while presets are on. What was given is kept apart here as a mapping of raw values;
of a saved run, whose files hold the result, it is what differs from the preset of the policy saved beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lerobot_ray.config.decode import decode
from lerobot_ray.config.encode import choice_name, encode
from lerobot_ray.config.optim import OptimizerConfig, SchedulerConfig
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.policy import PolicyConfig

Config = TypeVar("Config", OptimizerConfig, SchedulerConfig)


def resolve_optimizer(
    policy: PolicyConfig, given: Mapping[str, Any] | OptimizerConfig | None = None, *, origin: Origin | None = None
) -> OptimizerConfig:
    """The policy's preset with the given fields in place of its own.

    `given` holds any of the optimizer's fields and possibly `type`; with another type than the preset's, the fields
    that both types have keep the preset's values. A whole OptimizerConfig is taken as it is.
    """
    return _resolve(OptimizerConfig, policy.get_optimizer_preset(), given, "optimizer", origin)


def resolve_scheduler(
    policy: PolicyConfig, given: Mapping[str, Any] | SchedulerConfig | None = None, *, origin: Origin | None = None
) -> SchedulerConfig | None:
    """As `resolve_optimizer`; None where the preset has no schedule and none was given."""
    preset = policy.get_scheduler_preset()
    if preset is None and given is None:
        return None
    return _resolve(SchedulerConfig, preset, given, "scheduler", origin)


def given_beyond_preset(saved: Mapping[str, Any], preset: Any) -> dict[str, Any]:
    """The fields of a saved optimizer or schedule that the preset beside it does not explain."""
    usual = encode(preset) if preset is not None else {}
    if saved.get("type", usual.get("type")) != usual.get("type"):
        return dict(saved)
    return {key: value for key, value in saved.items() if key not in usual or value != usual[key]}


def _resolve(kind: type[Config], preset: Any, given: Any, section: str, origin: Origin | None) -> Config:
    if isinstance(given, kind):
        return given
    if not given:
        return _as_own(kind, preset)
    if not isinstance(given, Mapping):
        return decode(kind, given, origin=origin, path=(section,))  # says how to write it
    usual = encode(preset) if preset is not None else {}
    chosen = str(given.get("type", usual.get("type")))
    if chosen in kind.get_known_choices():
        fields = kind.get_choice_class(chosen).__dataclass_fields__
        usual = {"type": chosen, **{key: value for key, value in usual.items() if key in fields}}
    return decode(kind, {**usual, **given}, origin=origin, path=(section,))


def _as_own(kind: type[Config], preset: Any) -> Config:
    """A preset of LeRobot's own classes as ours; one of a kind we do not know stays what it is."""
    if isinstance(preset, kind) or choice_name(preset) not in kind.get_known_choices():
        return preset
    return decode(kind, encode(preset))
