"""What one feature of a dataset is, and whether two datasets have the same ones.

Everything a reader needs to know about a column comes from its entry in info.json; the parquet types are brought to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lerobot_ray.core.errors import DatasetError

MAX_DIMENSIONS = 5
CHANNEL_NAMES = ("channel", "channels")
DEPTH_MARKERS = ("is_depth_map", "video.is_depth_map")


@dataclass(frozen=True)
class FeatureSpec:
    """One entry of `features` in info.json. `shape` is as stored there: cameras are (H, W, C)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_video(self) -> bool:
        return self.dtype == "video"

    @property
    def is_image(self) -> bool:
        return self.dtype == "image"

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("video", "image")

    @property
    def is_depth(self) -> bool:
        return self.is_camera and any(bool(self.info.get(marker)) for marker in DEPTH_MARKERS)

    @property
    def is_language(self) -> bool:
        return self.dtype == "language"

    @property
    def is_string(self) -> bool:
        return self.dtype == "string"

    @property
    def is_numeric(self) -> bool:
        """A column of numbers or booleans: what becomes a tensor without decoding anything."""
        return not (self.is_camera or self.is_language or self.is_string)

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    @property
    def item_dtype(self) -> np.dtype:
        """The dtype of samples: as LeRobot gives them, floats of any width are float32 and integers int64."""
        return np.dtype({"b": np.bool_, "f": np.float32}.get(self.numpy_dtype.kind, np.int64))

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one row as an array: a feature of shape [1] is a scalar."""
        return () if self.shape in ((), (1,)) else self.shape

    @property
    def channels_first_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a camera, whichever way round info.json has it."""
        a, b, c = self.shape
        names = self.names if isinstance(self.names, (list, tuple)) and len(self.names) == 3 else ("", "", "")
        if names[2] in CHANNEL_NAMES:
            return c, a, b
        if names[0] in CHANNEL_NAMES or (a in (1, 3) and c not in (1, 3)):
            return a, b, c
        return c, a, b


def parse_feature(name: str, entry: Mapping[str, Any], *, where: str) -> FeatureSpec:
    """The spec of one entry of info.json, checked. `where` names the file in errors."""
    if "/" in name:
        raise DatasetError(f'{where}: feature name "{name}" contains "/". Rename it, for example with dots.')
    if not isinstance(entry, Mapping) or "dtype" not in entry or "shape" not in entry:
        raise DatasetError(f"{where}: feature {name} needs a dtype and a shape, found {entry!r}.")
    shape = entry["shape"]
    if not isinstance(shape, (list, tuple)) or not all(isinstance(side, int) and side > 0 for side in shape):
        raise DatasetError(f"{where}: feature {name} has shape {shape!r}; expected a list of positive integers.")
    # `video_info` is where older recorders put what is now under `info`.
    info = {**(entry.get("video_info") or {}), **(entry.get("info") or {})}
    spec = FeatureSpec(name=name, dtype=str(entry["dtype"]), shape=tuple(shape), names=entry.get("names"), info=info)
    if spec.is_camera and len(spec.shape) != 3:
        raise DatasetError(f"{where}: camera {name} has shape {list(spec.shape)}; expected [height, width, channels].")
    if spec.is_numeric:
        _check_numeric(spec, where)
    return spec


def _check_numeric(spec: FeatureSpec, where: str) -> None:
    try:
        is_number = spec.numpy_dtype.kind in "biuf"
    except TypeError:
        is_number = False
    if not is_number:
        raise DatasetError(
            f"{where}: feature {spec.name} has dtype {spec.dtype!r}, which is neither a numpy number type nor one of "
            "video, image, string, language."
        )
    if len(spec.shape) > MAX_DIMENSIONS:
        raise DatasetError(
            f"{where}: feature {spec.name} has {len(spec.shape)} dimensions; the format allows up to {MAX_DIMENSIONS}. "
            "Flatten some of them."
        )


def fingerprint_of_features(features: Mapping[str, FeatureSpec], fps: int) -> dict[str, Any]:
    """What a trained policy depends on: dtypes, shapes, order of components and rate. Plain JSON.

    Strings and language columns may come and go: annotating a dataset does not change what was learnt from it.
    """
    used = {name: spec for name, spec in sorted(features.items()) if not (spec.is_string or spec.is_language)}
    return {"fps": fps, "features": {name: _describe(spec) for name, spec in used.items()}}


def _describe(spec: FeatureSpec) -> dict[str, Any]:
    if spec.is_camera:
        return {"dtype": "camera", "shape": list(spec.channels_first_shape), "depth": spec.is_depth}
    return {"dtype": spec.dtype, "shape": list(spec.shape), "names": _plain(spec.names)}


def _plain(names: Any) -> Any:
    return [_plain(name) for name in names] if isinstance(names, (list, tuple)) else names


def describe_changes(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, one line each; empty when a checkpoint fits the dataset."""
    changes = []
    if saved.get("fps") != current["fps"]:
        changes.append(f"fps was {saved.get('fps')}, is {current['fps']}")
    before, now = saved.get("features", {}), current["features"]
    for name in sorted({*before, *now}):
        if name not in now:
            changes.append(f"{name} is gone")
        elif name not in before:
            changes.append(f"{name} is new")
        else:
            changes += [
                f"{name}: {field_name} was {before[name].get(field_name)}, is {now[name].get(field_name)}"
                for field_name in sorted({*before[name], *now[name]})
                if before[name].get(field_name) != now[name].get(field_name)
            ]
    return changes
