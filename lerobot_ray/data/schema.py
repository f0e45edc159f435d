"""Feature entries of info.json as Arrow columns, exactly as LeRobot's own files have them.

Besides the Arrow types, a file carries the column types of the `datasets` library as JSON, so that both libraries read
it without being told anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot_ray.core.types import EPISODE_INDEX, FRAME_INDEX, INDEX, TASK_INDEX, TIMESTAMP
from lerobot_ray.data.features import FeatureSpec

INDEX_ENTRIES: dict[str, dict[str, Any]] = {
    TIMESTAMP: {"dtype": "float32", "shape": [1], "names": None},
    **{
        name: {"dtype": "int64", "shape": [1], "names": None}
        for name in (FRAME_INDEX, EPISODE_INDEX, INDEX, TASK_INDEX)
    },
}
"""The entries every dataset's features end with."""

LANGUAGE_PERSISTENT, LANGUAGE_EVENTS = "language_persistent", "language_events"
LANGUAGE_TEXTS = ("role", "content", "style", "camera")

_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_JSON_FIELD = pa.field(
    "element", pa.string(), metadata={"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""}
)


def table_schema(features: Iterable[FeatureSpec]) -> pa.Schema:
    """The schema of a data file: every feature but the videos, in order."""
    columns = [spec for spec in features if not spec.is_video]
    described = {spec.name: _hf_type(spec) for spec in columns}
    text = json.dumps({"info": {"features": described}})
    # The library wants a fingerprint; a digest of the types keeps the same data the same file.
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    document = json.dumps({"info": {"features": described}, "fingerprint": fingerprint})
    return pa.schema([_field(spec) for spec in columns], metadata={"huggingface": document})


def column(spec: FeatureSpec, values: Sequence[Any] | np.ndarray) -> pa.Array:
    """One column from one value per row: an array (n, *shape), or a list of strings, image structs, language rows."""
    arrow = _field(spec).type
    if not spec.is_numeric:
        return pa.array(list(values), type=arrow)
    array = np.ascontiguousarray(values, dtype=spec.numpy_dtype).reshape(len(values), *spec.item_shape)
    flat = pa.array(array.reshape(-1), type=pa.from_numpy_dtype(spec.numpy_dtype))
    if len(spec.item_shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, spec.item_shape[0])
    for size in reversed(spec.item_shape):  # innermost axis first
        flat = pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, size, dtype=np.int32), flat)
    return flat.cast(arrow) if flat.type != arrow else flat


def _field(spec: FeatureSpec) -> pa.Field:
    if spec.is_image:
        return pa.field(spec.name, _IMAGE_TYPE)
    if spec.is_string:
        return pa.field(spec.name, pa.string())
    if spec.is_language:
        return pa.field(spec.name, pa.list_(pa.struct(_language_fields(spec))))
    value = pa.from_numpy_dtype(spec.numpy_dtype)
    shape = spec.item_shape
    if len(shape) <= 1:
        return pa.field(spec.name, pa.list_(value, shape[0]) if shape else value)
    nested = value
    for _ in shape:
        nested = pa.list_(nested)
    metadata = {
        "ARROW:extension:name": f"datasets.features.features.Array{len(shape)}DExtensionType",
        "ARROW:extension:metadata": json.dumps([list(shape), spec.dtype]),
    }
    return pa.field(spec.name, nested, metadata=metadata)


def _language_fields(spec: FeatureSpec) -> list[pa.Field]:
    fields = [pa.field(name, pa.string()) for name in ("role", "content", "style")]
    if spec.name == LANGUAGE_PERSISTENT:
        fields.append(pa.field("timestamp", pa.float32()))
    return [*fields, pa.field("camera", pa.string()), pa.field("tool_calls", pa.list_(_JSON_FIELD))]


def _hf_type(spec: FeatureSpec) -> dict[str, Any]:
    if spec.is_image:
        return {"_type": "Image"}
    if spec.is_language:
        rows = {name: {"dtype": "string", "_type": "Value"} for name in ("role", "content", "style")}
        if spec.name == LANGUAGE_PERSISTENT:
            rows["timestamp"] = {"dtype": "float32", "_type": "Value"}
        rows["camera"] = {"dtype": "string", "_type": "Value"}
        return {"feature": {**rows, "tool_calls": {"feature": {"_type": "Json"}, "_type": "List"}}, "_type": "List"}
    value = {"dtype": spec.dtype, "_type": "Value"}
    shape = spec.item_shape
    if len(shape) <= 1:
        return {"feature": value, "length": shape[0], "_type": "List"} if shape else value
    return {"shape": list(shape), "dtype": spec.dtype, "_type": f"Array{len(shape)}D"}


def language_row(row: Mapping[str, Any], *, persistent: bool) -> dict[str, Any]:
    """A language row as it is stored: all fields present, tool calls as JSON text."""
    calls = row.get("tool_calls")
    stored: dict[str, Any] = {name: row.get(name) for name in LANGUAGE_TEXTS}
    stored["tool_calls"] = None if calls is None else [json.dumps(call, ensure_ascii=False) for call in calls]
    if persistent:
        stored["timestamp"] = row.get("timestamp")
    return stored
