"""A block as one Arrow row: numpy arrays in and out of Ray's object store without a copy on the reading side.

Ray Data moves Arrow tables. A block becomes a table of one row, so that Ray never splits or merges it, with one
binary column per array; dtypes and shapes ride in the schema's metadata. Reading gives read-only views into shared
memory. What is not an array (strings, language rows) rides pickled, in the same way. What lies in a landing place of
the training process (see `landing`) does not ride at all: the layout says where it is.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from lerobot_ray.on_ray.landing import LandingPlaces

_META = b"lerobot_ray.block"
_PLACE = b"lerobot_ray.place"
NUMBER = "block_number"


@dataclass(frozen=True)
class Landed:
    """A landing place that arrays of a block may lie in."""

    place: int
    memory: Any

    def offset(self, value: np.ndarray) -> int | None:
        """Where `value` lies there, if it does."""
        begin = value.ctypes.data - np.frombuffer(self.memory, np.uint8).ctypes.data
        return begin if 0 <= begin <= len(self.memory) - value.nbytes else None


def frame_block(number: int, columns: Mapping[str, Any], landed: Landed | None = None) -> pa.Table:
    """Columns (numpy arrays, or picklable lists) of block `number` as a table of one row."""
    layout: dict[str, Any] = {}
    arrays: list[pa.Array] = [pa.array([number], pa.int64())]
    fields = [pa.field(NUMBER, pa.int64())]
    for name, value in columns.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            value = np.ascontiguousarray(value)
            layout[name] = {"dtype": value.dtype.str, "shape": list(value.shape)}
            if landed is not None and (begin := landed.offset(value)) is not None:
                layout[name]["at"] = begin
                continue
            payload = pa.py_buffer(value) if value.nbytes else pa.py_buffer(b"")
        else:
            layout[name] = {"pickled": True}
            payload = pa.py_buffer(pickle.dumps(list(value), protocol=5))
        offsets = pa.py_buffer(np.array([0, payload.size], dtype=np.int64))
        arrays.append(pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, payload]))
        fields.append(pa.field(name, pa.large_binary()))
    metadata = {_META: json.dumps(layout).encode()}
    if landed is not None and any("at" in entry for entry in layout.values()):
        metadata[_PLACE] = str(landed.place).encode()
    schema = pa.schema(fields, metadata=metadata)
    return pa.Table.from_arrays(arrays, schema=schema)


def has_landed(table: pa.Table) -> bool:
    """Whether something of a block lies in its landing place."""
    return _PLACE in table.schema.metadata


def unframe_block(table: pa.Table, places: LandingPlaces | None = None) -> tuple[int, dict[str, Any]]:
    """The inverse of `frame_block`: the number and the columns. Arrays are read-only views; keep no reference longer
    than needed, each pins its block in the object store or in its landing place."""
    layout = json.loads(table.schema.metadata[_META])
    number = int(table.column(NUMBER)[0].as_py())
    if has_landed(table):
        assert places is not None
        place = places.view(int(table.schema.metadata[_PLACE]), number)
    columns: dict[str, Any] = {}
    for name, entry in layout.items():
        if "at" in entry:
            dtype = np.dtype(entry["dtype"])
            size = dtype.itemsize * math.prod(entry["shape"])
            columns[name] = place[entry["at"] : entry["at"] + size].view(dtype).reshape(entry["shape"])
            continue
        chunk = table.column(name).chunk(0)
        _, offsets, payload = chunk.buffers()
        start, stop = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + 2]
        data = memoryview(payload)[start:stop] if payload is not None else memoryview(b"")
        if "pickled" in entry:
            columns[name] = pickle.loads(data)  # our own bytes, written by `frame_block` within this run
        else:
            columns[name] = np.frombuffer(data, dtype=np.dtype(entry["dtype"])).reshape(entry["shape"])
    return number, columns
