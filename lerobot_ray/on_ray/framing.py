"""A block as one Arrow row: numpy arrays in and out of Ray's object store without a copy on the reading side.

Ray Data moves Arrow tables. A block becomes a table of one row, so that Ray never splits or merges it, with one
binary column per array; dtypes and shapes ride in the schema's metadata. Reading gives read-only views into shared
memory. What is not an array (strings, language rows) rides pickled, in the same way.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

_META = b"lerobot_ray.block"
NUMBER = "block_number"


def frame_block(number: int, columns: Mapping[str, Any]) -> pa.Table:
    """Columns (numpy arrays, or picklable lists) of block `number` as a table of one row."""
    layout: dict[str, Any] = {}
    arrays: list[pa.Array] = [pa.array([number], pa.int64())]
    fields = [pa.field(NUMBER, pa.int64())]
    for name, value in columns.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            value = np.ascontiguousarray(value)
            layout[name] = {"dtype": value.dtype.str, "shape": list(value.shape)}
            payload = pa.py_buffer(value) if value.nbytes else pa.py_buffer(b"")
        else:
            layout[name] = {"pickled": True}
            payload = pa.py_buffer(pickle.dumps(list(value), protocol=5))
        offsets = pa.py_buffer(np.array([0, payload.size], dtype=np.int64))
        arrays.append(pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, payload]))
        fields.append(pa.field(name, pa.large_binary()))
    schema = pa.schema(fields, metadata={_META: json.dumps(layout).encode()})
    return pa.Table.from_arrays(arrays, schema=schema)


def unframe_block(table: pa.Table) -> tuple[int, dict[str, Any]]:
    """The inverse of `frame_block`: the number and the columns. Arrays are read-only views; keep no reference longer
    than needed, each pins its block in the object store."""
    layout = json.loads(table.schema.metadata[_META])
    columns: dict[str, Any] = {}
    for name, entry in layout.items():
        chunk = table.column(name).chunk(0)
        _, offsets, payload = chunk.buffers()
        start, stop = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + 2]
        data = memoryview(payload)[start:stop] if payload is not None else memoryview(b"")
        if "pickled" in entry:
            columns[name] = pickle.loads(data)  # our own bytes, written by `frame_block` within this run
        else:
            columns[name] = np.frombuffer(data, dtype=np.dtype(entry["dtype"])).reshape(entry["shape"])
    return int(table.column(NUMBER)[0].as_py()), columns
