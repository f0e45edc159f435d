"""Statistics as the normaliser takes them: which a mode needs, whether they are fit for use, cameras' replacement.

Names are LeRobot's (`mean`, `std`, `min`, `max`, `q01`, …). Arrays come from stats.json, tensors from a state file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import FeatureType, NormalizationMode, PolicyFeature, Stats

NEEDED = {
    NormalizationMode.IDENTITY: (),
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
"""The two statistics of each mode: centre and width, or lower and upper end."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Tensors = dict[str, dict[str, Tensor]]
"""Feature -> statistic -> float32 tensor."""


def with_imagenet_stats(stats: Mapping[str, Mapping[str, Any]] | None, rgb_cameras: Iterable[str]) -> Stats:
    """A copy of `stats` where the given cameras have ImageNet's mean and standard deviation; the rest stays.

    For `dataset.use_imagenet_stats`. Give it RGB cameras only: depth has no ImageNet.
    """
    result: Stats = {key: dict(values) for key, values in (stats or {}).items()}
    for camera in rgb_cameras:
        mean = np.array(IMAGENET_MEAN, dtype=np.float32).reshape(3, 1, 1)
        std = np.array(IMAGENET_STD, dtype=np.float32).reshape(3, 1, 1)
        result[camera] = {**result.get(camera, {}), "mean": mean, "std": std}
    return result


def renamed_stats(stats: Mapping[str, Mapping[str, Any]], rename_map: Mapping[str, str]) -> Stats:
    """The statistics under the names the policy uses. LeRobot leaves them under the dataset's, where the normaliser
    of a renamed camera does not find them and silently does nothing."""
    kept = {key: dict(values) for key, values in stats.items() if key not in rename_map.values() or key in rename_map}
    return {rename_map.get(key, key): values for key, values in kept.items()}


def stat_tensors(stats: Mapping[str, Mapping[str, Any]] | None, features: Mapping[str, PolicyFeature]) -> Tensors:
    """Float32 copies on the CPU. One-dimensional statistics of a camera in `features` become (C, 1, 1)."""
    result: Tensors = {}
    for key, values in (stats or {}).items():
        is_camera = key in features and features[key].type is FeatureType.VISUAL
        tensors = {name: _tensor(value, f"{key}.{name}") for name, value in values.items()}
        result[key] = {name: t.reshape(-1, 1, 1) if is_camera and t.ndim == 1 else t for name, t in tensors.items()}
    return result


def _tensor(value: Any, where: str) -> Tensor:
    try:
        if isinstance(value, Tensor):
            return value.detach().to(device="cpu", dtype=torch.float32, copy=True)
        return torch.from_numpy(np.array(value, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise ProcessorError(f"statistic {where} is not a number or an array of numbers: {error}.") from None


def check_statistics(
    features: Mapping[str, PolicyFeature],
    norm_map: Mapping[FeatureType, NormalizationMode],
    stats: Mapping[str, Mapping[str, Any]] | None,
    *,
    where: str = "the dataset's meta/stats.json",
) -> None:
    """Raises ProcessorError when a feature that will be normalised lacks a statistic, or has one that cannot be used.

    Called before a run. Without it a feature without statistics would pass unnormalised, as it does in LeRobot.
    """
    tensors = stat_tensors({key: values for key, values in (stats or {}).items() if key in features}, features)
    problems = []
    for key, feature in features.items():
        mode = norm_map.get(feature.type, NormalizationMode.IDENTITY)
        found = tensors.get(key, {})
        if missing := [name for name in NEEDED[mode] if name not in found]:
            problems.append(f"{key} ({mode.value}) lacks {' and '.join(missing)}")
            continue
        for name in NEEDED[mode]:
            if not fits(found[name].shape, feature.shape):
                shapes = f"{list(found[name].shape)}, the feature has {list(feature.shape)}"
                problems.append(f"{key}.{name} has shape {shapes}")
            elif not bool(torch.isfinite(found[name]).all()):
                problems.append(f"{key}.{name} holds NaN or infinity")
    if problems:
        raise ProcessorError(
            f"statistics that normalisation needs: {'; '.join(problems)} (looked in {where}). Recompute them, give "
            "them explicitly, or set that feature type to IDENTITY in --policy.normalization_mapping."
        )


def unnormalized(
    features: Mapping[str, PolicyFeature],
    norm_map: Mapping[FeatureType, NormalizationMode],
    stats: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Features whose type has a mode but which have no statistics at all: the normaliser leaves them as they are."""
    modes = {key: norm_map.get(feature.type, NormalizationMode.IDENTITY) for key, feature in features.items()}
    return [key for key, mode in modes.items() if NEEDED[mode] and not stats.get(key)]


def fits(stat_shape: Iterable[int], feature_shape: Iterable[int]) -> bool:
    """Whether a statistic broadcasts over a feature without widening it."""
    stat, feature = tuple(stat_shape), tuple(feature_shape)
    padded = (1,) * (len(feature) - len(stat)) + stat
    return len(padded) == len(feature) and all(s in (1, f) for s, f in zip(padded, feature, strict=True))
