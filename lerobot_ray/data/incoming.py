"""What a caller hands the writer, checked against the features: every message names the key and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lerobot_ray.core.errors import DatasetError, nearest
from lerobot_ray.core.types import TASK
from lerobot_ray.data.depth import DepthCoding
from lerobot_ray.data.features import FeatureSpec, parse_feature
from lerobot_ray.data.schema import INDEX_ENTRIES, LANGUAGE_EVENTS, LANGUAGE_PERSISTENT, LANGUAGE_TEXTS

IMAGE_NAMES = ["height", "width", "channels"]
_LANGUAGE_FIELDS = {*LANGUAGE_TEXTS, "tool_calls"}


def check_features(features: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The entries for info.json of a new dataset: checked, in order, with the five index features last."""
    entries: dict[str, dict[str, Any]] = {}
    for name, entry in features.items():
        if name in INDEX_ENTRIES:  # copied from another dataset's info.json
            continue
        if name == TASK:
            raise DatasetError('features: "task" is not a feature; every frame passes it as frame["task"].')
        spec = parse_feature(name, {**entry, "shape": list(entry.get("shape") or [])}, where="features")
        entries[name] = _entry(spec)
    if not entries:
        raise DatasetError("features is empty: name at least what the robot senses and does.")
    return {**entries, **{name: dict(entry) for name, entry in INDEX_ENTRIES.items()}}


def _entry(spec: FeatureSpec) -> dict[str, Any]:
    if spec.is_language and spec.name not in (LANGUAGE_PERSISTENT, LANGUAGE_EVENTS):
        raise DatasetError(
            f"features: language columns are called {LANGUAGE_PERSISTENT} and {LANGUAGE_EVENTS}, not {spec.name}."
        )
    if not spec.is_camera:
        if not spec.shape:
            raise DatasetError(f"features: {spec.name} needs a shape, [1] for a scalar.")
        return {"dtype": spec.dtype, "shape": list(spec.shape), "names": spec.names}
    height, width, channels = spec.shape
    if spec.channels_first_shape[0] != channels or channels > 4:
        raise DatasetError(
            f"features: camera {spec.name} has shape {list(spec.shape)}; expected [height, width, channels]."
        )
    if channels != (1 if spec.is_depth else 3):
        raise DatasetError(
            f"features: camera {spec.name} has {channels} channels; a colour camera has 3, and a depth camera 1 and "
            'the entry "info": {"is_depth_map": True}.'
        )
    if spec.is_video and not spec.is_depth and (height % 2 or width % 2):
        raise DatasetError(
            f"features: camera {spec.name} is {width}x{height}; video needs even sides. Crop or pad the frames, or use "
            'dtype "image".'
        )
    entry: dict[str, Any] = {"dtype": spec.dtype, "shape": list(spec.shape), "names": spec.names or IMAGE_NAMES}
    if spec.is_depth:
        coding = {key: spec.info[key] for key in DepthCoding().describe() if key in spec.info}
        entry["info"] = {"is_depth_map": True, **coding}
    return entry


def check_frame(frame: Mapping[str, Any], specs: Mapping[str, FeatureSpec], *, where: str) -> dict[str, Any]:
    """The frame's values as the writer stores them: fresh arrays of the feature's dtype and shape."""
    wanted = {*specs, TASK}
    optional = {name for name, spec in specs.items() if spec.is_language}
    if extra := [key for key in frame if key not in wanted]:
        raise DatasetError(f"{where}: {_about_extra(str(extra[0]), wanted)}")
    if missing := [key for key in wanted if key not in frame and key not in optional]:
        raise DatasetError(
            f"{where}: {sorted(missing)[0]!r} is missing. Every frame needs {', '.join([*specs, TASK])}."
        )
    task = frame[TASK]
    if not isinstance(task, str) or not task:
        raise DatasetError(f'{where}: frame["task"] is {task!r}; expected a text that says what the robot should do.')
    return {name: _check_value(spec, frame.get(name), where) for name, spec in specs.items()}


def _about_extra(key: str, wanted: set[str]) -> str:
    if key in INDEX_ENTRIES:
        return f"{key!r} is filled in by the writer. Leave it out of the frame."
    near = nearest(key, wanted)
    return f"{key!r} is not a feature of this dataset" + (f", did you mean {near!r}?" if near else ".")


def _check_value(spec: FeatureSpec, value: Any, where: str) -> Any:
    if spec.is_camera:
        return _check_camera(spec, value, where)
    if spec.is_string:
        if not isinstance(value, str):
            raise DatasetError(f"{where}: {spec.name} is {type(value).__name__}; expected a str.")
        return value
    if spec.is_language:
        return _check_language(spec, value, where)
    array = np.asarray(value)
    # Plain Python numbers and lists have no dtype of their own; arrays do, and a silent cast would hide a mistake.
    can_become = not hasattr(value, "dtype") and np.can_cast(array.dtype, spec.numpy_dtype, "same_kind")
    if array.dtype != spec.numpy_dtype and not can_become:
        raise DatasetError(
            f"{where}: {spec.name} has dtype {array.dtype}; expected {spec.dtype}. "
            f"Convert it, for example with .astype(np.{spec.dtype})."
        )
    if array.shape != spec.item_shape and array.shape != spec.shape:
        raise DatasetError(f"{where}: {spec.name} has shape {list(array.shape)}; expected {list(spec.shape)}.")
    return np.array(array, dtype=spec.numpy_dtype).reshape(spec.item_shape)


def _check_camera(spec: FeatureSpec, value: Any, where: str) -> np.ndarray:
    pixels = np.asarray(value)
    height, width, channels = spec.shape
    allowed = [(height, width, channels), *([(height, width)] if spec.is_depth else [])]
    if pixels.shape not in allowed:
        hint = " Transpose it to (height, width, channels)." if pixels.shape == (channels, height, width) else ""
        raise DatasetError(
            f"{where}: camera {spec.name} has shape {list(pixels.shape)}; expected {list(spec.shape)}.{hint}"
        )
    if not spec.is_depth:
        if pixels.dtype != np.uint8:
            raise DatasetError(f"{where}: camera {spec.name} has dtype {pixels.dtype}; expected uint8, 0 to 255.")
        return np.array(pixels)
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    if pixels.dtype not in (np.dtype(np.uint16), np.dtype(np.float32)):
        raise DatasetError(
            f"{where}: depth camera {spec.name} has dtype {pixels.dtype}; expected uint16 (millimetres) or float32 "
            "(metres)."
        )
    return np.array(pixels.reshape(height, width))


def _check_language(spec: FeatureSpec, value: Any, where: str) -> list[dict[str, Any]]:
    known = _LANGUAGE_FIELDS | ({"timestamp"} if spec.name == LANGUAGE_PERSISTENT else set())
    rows = [] if value is None else list(value)
    for row in rows:
        if not isinstance(row, Mapping) or not {*row} <= known or not isinstance(row.get("role"), str):
            raise DatasetError(
                f"{where}: {spec.name} holds {row!r}; expected dicts with a role and any of {', '.join(sorted(known))}."
            )
        if spec.name == LANGUAGE_PERSISTENT and not isinstance(row.get("timestamp"), (int, float)):
            raise DatasetError(f"{where}: {spec.name} needs a timestamp in seconds in every row, found {row!r}.")
    return [dict(row) for row in rows]
