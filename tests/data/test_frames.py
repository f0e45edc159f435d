"""Tabular columns through memory-mapped files: values, shapes, all arrow flavours, and converters that die half way."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_ray.core.errors import DatasetError, StorageError
from lerobot_ray.data import frame_files
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.frame_files import bring_to_spec, is_whole
from lerobot_ray.data.frames import FrameTable
from lerobot_ray.data.metadata import open_metadata

GOLDENS = Path(__file__).parent / "goldens"
MIXED = np.array([28, 0, 7, 6, 7, 20, 21])
"""Rows of all three data files of two_cameras, unordered, one twice."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset"))


def open_table(root: Path, cache: Path, **options) -> FrameTable:
    return FrameTable(open_metadata("x/y", root=root), cache_dir=cache, **options)


def parquet_rows(root: Path, name: str) -> list:
    return [value for path in sorted(root.glob("data/*/*.parquet")) for value in pq.read_table(path)[name].to_pylist()]


def test_any_rows_of_any_files(root, tmp_path):
    table = open_table(root, tmp_path / "cache")
    for name in ("observation.state", "next.reward", "next.done", "timestamp", "index", "task_index"):
        expected = parquet_rows(root, name)
        spec = table.metadata.features[name]
        for rows in (MIXED, np.array([3]), np.array([], dtype=np.int64), np.arange(29), MIXED[:6].reshape(2, 3)):
            values = table.column(name, rows)
            assert values.dtype == spec.numpy_dtype
            assert values.shape == (*rows.shape, *spec.item_shape)
            wanted = np.array([expected[row] for row in rows.ravel()], values.dtype).reshape(values.shape)
            np.testing.assert_array_equal(values, wanted)


def test_few_open_files_are_enough(root, tmp_path):
    table = open_table(root, tmp_path / "cache", max_open=1)
    for _ in range(3):
        assert table.column("index", MIXED).tolist() == MIXED.tolist()


def test_rows_outside_are_an_error(root, tmp_path):
    table = open_table(root, tmp_path / "cache")
    for rows in ([29], [-1]):
        with pytest.raises(IndexError):
            table.column("index", np.array(rows))
    with pytest.raises(DatasetError, match="no feature nonsense"):
        table.column("nonsense", MIXED)
    with pytest.raises(DatasetError, match="is video"):
        table.objects("observation.images.front", MIXED)


def test_arrays_strings_and_images(tmp_path):
    root = GOLDENS / "images" / "dataset"
    table = open_table(root, tmp_path / "cache")
    rows = np.array([11, 0, 4, 4])
    for name, shape in [("observation.matrix", (2, 3)), ("observation.tensor", (2, 1, 2, 3)), ("weight", ())]:
        expected = parquet_rows(root, name)
        values = table.column(name, rows)
        assert values.shape == (4, *shape)
        np.testing.assert_array_equal(values, np.array([expected[row] for row in rows], values.dtype))
    assert table.objects("note", rows) == [f"frame {frame}, größer" for frame in (4, 0, 0, 0)]
    encoded = parquet_rows(root, "observation.image")
    assert table.objects("observation.image", rows) == [encoded[row]["bytes"] for row in rows]


@pytest.mark.parametrize("flavour", ["language_inferred", "language_declared"])
def test_language_columns_of_both_arrow_flavours(flavour, tmp_path):
    table = open_table(GOLDENS / flavour / "dataset", tmp_path / "cache")
    persistent = table.objects("language_persistent", np.array([6, 0]))
    contents = [[row["content"] for row in rows] for rows in persistent]
    assert contents == [["part 0 of 1", "part 1 of 1"], ["part 0 of 0"]]
    assert persistent[0][0]["timestamp"] == float(np.float32(0.1))
    events = table.objects("language_events", np.array([2, 3]))
    say = {"type": "function", "function": {"name": "say", "arguments": {"text": "done, größer"}}}
    assert events[0][0]["tool_calls"] == [say]
    assert events[1] == []


def test_a_file_is_converted_once_and_shared(root, tmp_path, monkeypatch):
    open_table(root, tmp_path / "cache").column("index", MIXED)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.arrow")}
    assert len(written) == 3

    def refuse(*_):
        raise AssertionError("converted again")

    monkeypatch.setattr(frame_files, "_convert", refuse)
    table = pickle.loads(pickle.dumps(open_table(root, tmp_path / "cache")))
    assert table.column("index", MIXED).tolist() == MIXED.tolist()


def test_a_replaced_file_is_converted_again(root, tmp_path):
    assert open_table(root, tmp_path / "cache").column("next.reward", np.array([0])) == 0
    path = root / "data/chunk-000/file-000.parquet"
    data = pq.read_table(path)
    at = data.schema.get_field_index("next.reward")
    pq.write_table(data.set_column(at, "next.reward", pa.array([5.0] * 7, pa.float32())), path)
    os.utime(path, ns=(1, 1))
    assert open_table(root, tmp_path / "cache").column("next.reward", np.array([0])) == 5
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1, "the older conversion is removed"


def test_changed_dtypes_are_converted_again(root, tmp_path):
    open_table(root, tmp_path / "cache").column("next.reward", np.array([0]))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["next.reward"]["dtype"] = "float64"
    (root / "meta/info.json").write_text(json.dumps(info))
    assert open_table(root, tmp_path / "cache").column("next.reward", np.array([0])).dtype == np.float64


def test_a_truncated_conversion_is_not_taken_for_whole(root, tmp_path):
    open_table(root, tmp_path / "cache").column("index", np.array([0]))
    (converted,) = (tmp_path / "cache").glob("*.arrow")
    whole = converted.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        converted.write_bytes(whole[:size])
        assert not is_whole(converted)
        assert open_table(root, tmp_path / "cache").column("index", np.array([6])).tolist() == [6]
        assert converted.read_bytes() == whole


KILLED = """
import os, signal, sys
from lerobot_ray.data import frame_files
from lerobot_ray.data.frames import FrameTable
from lerobot_ray.data.metadata import open_metadata
import numpy as np
frame_files._flush = lambda path: os.kill(os.getpid(), signal.SIGKILL)  # all bytes written, not yet renamed
FrameTable(open_metadata("x/y", root=sys.argv[1]), cache_dir=sys.argv[2]).column("index", np.array([0]))
"""


def test_a_killed_converter_leaves_nothing_that_counts(root, tmp_path):
    cache = tmp_path / "cache"
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(cache)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == [".tmp"]
    assert open_table(root, cache).column("index", np.array([6])).tolist() == [6]
    assert not list(cache.glob("*.tmp")), "the next converter clears up"


def read_all(root: str, cache: str, barrier, results) -> None:
    barrier.wait()
    table = FrameTable(open_metadata("x/y", root=root), cache_dir=Path(cache))
    results.put(int(table.column("index", np.arange(29)).sum()))


def test_processes_that_start_together_agree(root, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    arguments = (str(root), str(tmp_path / "cache"), barrier, results)
    processes = [context.Process(target=read_all, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sums == [sum(range(29))] * 3
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 3


def test_a_file_of_another_version_is_named(root, tmp_path):
    path = root / "data/chunk-000/file-001.parquet"
    data = pq.read_table(path)
    pq.write_table(data.slice(1), path)
    with pytest.raises(DatasetError, match=r"file-001\.parquet holds 13 rows, the episode table says 14"):
        open_table(root, tmp_path / "cache").column("index", np.array([7]))
    shutil.copy(root / "data/chunk-000/file-002.parquet", path)
    at = data.schema.get_field_index("index")
    pq.write_table(data.set_column(at, "index", pa.array(range(14))), path)
    with pytest.raises(DatasetError, match=r"file-001\.parquet holds rows 0 to 13, the episode table says 7 to 20"):
        open_table(root, tmp_path / "cache").column("index", np.array([7]))


def test_unreadable_files_are_named(root, tmp_path):
    path = root / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    table = open_table(root, tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"data/chunk-000/file-001\.parquet cannot be read .* fetch it again"):
        table.column("index", np.array([7]))
    assert table.column("index", np.array([0, 28])).tolist() == [0, 28], "the other files still work"
    path.unlink()
    with pytest.raises(StorageError, match=r"file-001\.parquet is missing"):
        table.column("index", np.array([7]))


def test_a_column_that_info_promises_must_be_there(root, tmp_path):
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["action"]), path)
    with pytest.raises(DatasetError, match=r"file-000\.parquet has no column action"):
        open_table(root, tmp_path / "cache").column("index", np.array([0]))


def test_a_cache_that_cannot_be_written_says_so(root, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="LEROBOT_RAY_CACHE"):
        open_table(root, tmp_path / "cache").column("index", np.array([0]))


def spec(dtype: str, *shape: int) -> FeatureSpec:
    return FeatureSpec("x", dtype, shape)


@pytest.mark.parametrize(
    ("column", "feature", "expected"),
    [
        (pa.array([1.5, 2.5], pa.float64()), spec("float32", 1), [1.5, 2.5]),
        (pa.array([[1.5], [2.5]]), spec("float32", 1), [1.5, 2.5]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int32())), spec("int64", 2), [[1, 2], [3, 4]]),
        (pa.array([[1, 2], [3, 4]], pa.large_list(pa.float16())), spec("float16", 2), [[1, 2], [3, 4]]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.uint8(), 2)), spec("uint8", 2), [[1, 2], [3, 4]]),
        (pa.array([True, False]), spec("bool", 1), [1, 0]),
        (pa.array([[[1, 2]], [[3, 4]]]), spec("int32", 1, 2), [[1, 2], [3, 4]]),
        (pa.array([[0], [1, 2], [3, 4]]).slice(1), spec("int64", 2), [[1, 2], [3, 4]]),
    ],
)
def test_columns_are_brought_to_what_info_says(column, feature, expected):
    assert bring_to_spec(column, feature, "x/y: file").to_pylist() == expected


@pytest.mark.parametrize(
    ("column", "feature", "says"),
    [
        (pa.array([[1, 2], [3]]), spec("int64", 2), "a list of 1 where info.json has the shape"),
        (pa.array([[1, 2], [3, 4]]), spec("int64", 3), "a list of 2"),
        (pa.array([1, 2]), spec("int64", 2), "does not have the shape"),
        (pa.array([1, None]), spec("int64", 1), "1 empty values"),
        (pa.array([[1, None]]), spec("int64", 2), "1 empty values"),
        (pa.array([1.5]), spec("int64", 1), "is double, not int64"),
        (pa.array(["1"]), spec("bool", 1), "not bool"),
        (pa.array([300]), spec("uint8", 1), "not uint8"),
        (pa.array([None, "a"]), spec("string", 1), "1 empty values"),
    ],
)
def test_columns_that_cannot_be_brought_there(column, feature, says):
    with pytest.raises(DatasetError, match=says):
        bring_to_spec(column, feature, "x/y: file")


def test_columns_are_views_of_the_mapping(root, tmp_path):
    table = open_table(root, tmp_path / "cache")
    table.column("action", MIXED)
    opened = table._open(0)
    view = opened.array(table.metadata.features["action"])
    assert not view.flags.owndata
    assert not view.flags.writeable
    assert opened.array(table.metadata.features["action"]) is view
