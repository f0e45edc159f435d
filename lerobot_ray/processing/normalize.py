"""Scales observations and actions by statistics before the policy, and actions back after it.

Per mode, with the two statistics `a` and `b` that `statistics.NEEDED` names:

    MEAN_STD                                  (x - a) / (b + eps)            x * b + a
    MIN_MAX, QUANTILES, QUANTILE10            2 (x - a) / d - 1              (x + 1) / 2 * d + a
    IDENTITY, no mode, no statistics          x                              x

`d = b - a`, replaced by eps where it is exactly 0. Nothing is clipped. The numbers are LeRobot's to the last bit:
halving `d` instead of doubling `x - a` is exact, so it saves a kernel and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import ACTION, FeatureType, NormalizationMode, PolicyFeature
from lerobot_ray.processing.statistics import NEEDED, fits, stat_tensors
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import Transition


@dataclass(frozen=True)
class _Scale:
    """One feature's constants on one device in one precision, for the two formulas below."""

    shift: Tensor
    divisor: Tensor
    factor: Tensor
    end: int

    def forward(self, x: Tensor) -> Tensor:
        # In place on the fresh difference: one allocation per feature, the channels-last order of images kept.
        scaled = (x - self.shift).div_(self.divisor)
        return scaled.sub_(self.end) if self.end else scaled

    def inverse(self, x: Tensor) -> Tensor:
        scaled = (x + self.end).mul_(self.factor) if self.end else x * self.factor
        return scaled.add_(self.shift)


class _Normalization(Step):
    """What both directions share: features, modes, statistics, and the constants made from them."""

    state_arguments = ("stats",)

    def __init__(
        self,
        features: Mapping[str, PolicyFeature | Mapping[str, Any]],
        norm_map: Mapping[Any, Any],
        stats: Mapping[str, Mapping[str, Any]] | None = None,
        eps: float = 1e-8,
        normalize_observation_keys: Iterable[str] | None = None,
    ) -> None:
        self.features = {key: as_feature(value, key) for key, value in features.items()}
        self.norm_map = as_norm_map(norm_map)
        self.eps = float(eps)
        self.normalize_observation_keys = set(normalize_observation_keys) if normalize_observation_keys else None
        self.stats = stat_tensors(stats, self.features)
        self._scales: dict[tuple[str, torch.dtype, torch.device], _Scale] = {}

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "eps": self.eps,
            "features": {key: {"type": f.type.value, "shape": list(f.shape)} for key, f in self.features.items()},
            "norm_map": {kind.value: mode.value for kind, mode in self.norm_map.items()},
        }
        if self.normalize_observation_keys is not None:
            config["normalize_observation_keys"] = sorted(self.normalize_observation_keys)
        return config

    def state_dict(self) -> dict[str, Tensor]:
        """All statistics of all features, also of those this step does not use: `action.mean`, `timestamp.q99`, …"""
        return {f"{key}.{name}": value for key, values in self.stats.items() for name, value in values.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        stats: dict[str, dict[str, Tensor]] = {}
        for place, value in state.items():
            key, _, name = place.rpartition(".")
            stats.setdefault(key, {})[name] = value
        self.stats, self._scales = stat_tensors(stats, self.features), {}

    def mode(self, key: str) -> NormalizationMode:
        """How the feature `key` is scaled; IDENTITY when it is not."""
        feature = self.features.get(key)
        if feature is None or not self.stats.get(key):
            return NormalizationMode.IDENTITY
        return self.norm_map.get(feature.type, NormalizationMode.IDENTITY)

    def _observations(self, transition: Transition, *, inverse: bool) -> dict[str, Any] | None:
        observation = transition.get("observation")
        if not observation:
            return observation
        only = self.normalize_observation_keys
        chosen = [key for key in self.features if key in observation and (only is None or key in only)]
        return {**observation, **{key: self._scaled(key, observation[key], inverse=inverse) for key in chosen}}

    def _action(self, transition: Transition, *, inverse: bool) -> Any:
        action = transition.get("action")
        return action if action is None else self._scaled(ACTION, action, inverse=inverse)

    def _scaled(self, key: str, value: Any, *, inverse: bool) -> Any:
        if self.mode(key) is NormalizationMode.IDENTITY:
            return value
        x = value if isinstance(value, Tensor) else torch.as_tensor(value)
        if not x.dtype.is_floating_point:
            x = x.float()
        place = (key, x.dtype, x.device)
        if place not in self._scales:
            self._scales[place] = self._scale(key, x)
        scale = self._scales[place]
        return scale.inverse(x) if inverse else scale.forward(x)

    def _scale(self, key: str, x: Tensor) -> _Scale:
        mode = self.mode(key)
        values = self.stats[key]
        if missing := [name for name in NEEDED[mode] if name not in values]:
            raise ProcessorError(
                f"{key} is normalised by {mode.value}, but its statistics lack {' and '.join(missing)}. They have "
                f"{', '.join(sorted(values))}. Recompute the dataset's statistics, or choose another mode."
            )
        low, high = (values[name].to(device=x.device, dtype=x.dtype) for name in NEEDED[mode])
        for name, value in zip(NEEDED[mode], (low, high), strict=True):
            if not fits(value.shape, x.shape):
                raise ProcessorError(
                    f"{key} has shape {list(x.shape)}, its statistic {name} {list(value.shape)}: they do not fit. "
                    "Was the policy trained on another robot or camera?"
                )
        if mode is NormalizationMode.MEAN_STD:
            return _Scale(shift=low, divisor=high + self.eps, factor=high, end=0)
        width = high - low
        half = torch.where(width == 0, torch.as_tensor(self.eps, device=x.device, dtype=x.dtype), width) / 2
        return _Scale(shift=low, divisor=half, factor=half, end=1)


@register_step("normalizer_processor")
class Normalizer(_Normalization):
    """Observations and actions as the policy sees them."""

    def __call__(self, transition: Transition) -> Transition:
        observation = self._observations(transition, inverse=False)
        return {**transition, "observation": observation, "action": self._action(transition, inverse=False)}


@register_step("unnormalizer_processor")
class Unnormalizer(_Normalization):
    """Actions as the robot takes them."""

    def __call__(self, transition: Transition) -> Transition:
        observation = self._observations(transition, inverse=True)
        return {**transition, "observation": observation, "action": self._action(transition, inverse=True)}


def as_feature(value: PolicyFeature | Mapping[str, Any], key: str = "") -> PolicyFeature:
    """A PolicyFeature from ours, LeRobot's, or the JSON form of either."""
    try:
        kind = value["type"] if isinstance(value, Mapping) else value.type
        shape = value["shape"] if isinstance(value, Mapping) else value.shape
        return PolicyFeature(FeatureType(getattr(kind, "value", kind)), tuple(int(side) for side in shape))
    except (KeyError, TypeError, ValueError, AttributeError):
        known = ", ".join(member.value for member in FeatureType)
        raise ProcessorError(f"feature {key}: {value!r} is not a type ({known}) and a shape.") from None


def as_norm_map(norm_map: Mapping[Any, Any]) -> dict[FeatureType, NormalizationMode]:
    """Feature type -> mode, from ours, LeRobot's, or plain strings."""
    try:
        return {
            FeatureType(getattr(kind, "value", kind)): NormalizationMode(getattr(mode, "value", mode))
            for kind, mode in norm_map.items()
        }
    except ValueError as error:
        known = ", ".join(member.value for member in NormalizationMode)
        raise ProcessorError(f"norm_map {dict(norm_map)!r}: {error}. Modes are {known}.") from None
