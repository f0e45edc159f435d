"""Blocks cross the object store as one Arrow row and come back as the same arrays, without a copy."""

import numpy as np
import pyarrow as pa

from lerobot_ray.on_ray.framing import frame_block, unframe_block

COLUMNS = {
    "image": np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4),
    "state": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
    "is_pad": np.array([[True, False], [False, True]]),
    "index": np.array([7, 2**40], dtype=np.int64),
    "nothing": np.zeros((0, 5), dtype=np.float32),
    "note": ["ein Wort", "", "日本"],
    "rows": [[{"role": "user", "content": None}], []],
}


def test_what_goes_in_comes_out():
    number, columns = unframe_block(frame_block(41, COLUMNS))
    assert number == 41
    assert columns.keys() == COLUMNS.keys()
    for name, value in COLUMNS.items():
        if isinstance(value, np.ndarray):
            assert columns[name].dtype == value.dtype
            assert np.array_equal(columns[name], value)
            assert columns[name].shape == value.shape
        else:
            assert columns[name] == value


def test_a_block_is_one_row_and_survives_the_wire():
    table = frame_block(3, COLUMNS)
    assert table.num_rows == 1
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    number, columns = unframe_block(pa.ipc.open_stream(sink.getvalue()).read_all())
    assert number == 3
    assert np.array_equal(columns["image"], COLUMNS["image"])


def test_reading_copies_nothing():
    table = frame_block(0, {"image": np.zeros(1 << 20, np.uint8)})
    before = pa.total_allocated_bytes()
    _, columns = unframe_block(table)
    assert pa.total_allocated_bytes() == before
    assert not columns["image"].flags.owndata
    payload = table.column("image").chunk(0).buffers()[2]
    assert columns["image"].ctypes.data == payload.address
