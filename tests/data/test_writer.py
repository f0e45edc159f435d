"""A written dataset is what the format says, and an interrupted one loses nothing that was saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.data import recording as recording_module
from lerobot_ray.data.dataset import Dataset
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.recording import SCRATCH_DIR, place_episodes
from lerobot_ray.data.recount import count_stats
from lerobot_ray.data.storage import LocalStorage
from lerobot_ray.data.validate import validate
from lerobot_ray.data.writer import DatasetWriter
from tests.make_dataset import action_of, code_frame, frame_code, make_dataset, state_of

FRONT = "observation.images.front"
FEATURES = {
    FRONT: {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": [4], "names": None},
    "action": {"dtype": "float32", "shape": [4], "names": None},
}


def frame_of(row: int, **changes) -> dict:
    frame = {
        FRONT: code_frame(row, (32, 48)),
        "observation.state": state_of(row),
        "action": action_of(row),
        "task": "stack",
    }
    return {key: value for key, value in {**frame, **changes}.items() if value is not None}


def new_writer(root: Path, **settings) -> DatasetWriter:
    settings = {"features": FEATURES, "fps": 10, "codec": "h264", "repo_id": "tests/w", **settings}
    return DatasetWriter(root, **settings)


def record(writer: DatasetWriter, *lengths: int) -> None:
    for length in lengths:
        for _ in range(length):
            frame = frame_of(writer.num_frames + (writer._episode.length if writer._episode else 0))
            writer.add_frame(frame)
        writer.save_episode()


def assert_whole(root: Path, *lengths: int) -> None:
    """The same, and nothing that `validate` finds is wrong."""
    assert_every_row(root, *lengths)
    assert validate("tests/w", LocalStorage(root), workers=1).problems == []


def assert_every_row(root: Path, *lengths: int) -> None:
    """Every row has its own numbers and pictures, and the scratch folder is gone."""
    assert not (root / SCRATCH_DIR).exists()
    assert open_metadata("tests/w", root=root).episodes.length.tolist() == list(lengths)
    dataset = Dataset("tests/w", root=root)
    for row in range(sum(lengths)):
        item = dataset[row]
        assert frame_code(item[FRONT]) == (0, row)
        assert np.array_equal(item["action"], action_of(row))


# What is written


def test_info_says_what_was_recorded(tmp_path):
    root = make_dataset(tmp_path / "toy", codec="av1", depth_cameras={"observation.images.depth": (32, 48)})
    text = (root / "meta/info.json").read_text()
    info = json.loads(text)
    assert list(info) == [
        *("codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks", "chunks_size"),
        *("data_files_size_in_mb", "video_files_size_in_mb", "data_path", "video_path", "robot_type", "splits"),
    ]
    assert text == json.dumps(info, indent=4, ensure_ascii=False)  # as LeRobot formats it, no final newline
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 72, 2)
    assert info["splits"] == {"train": "0:4"}
    assert list(info["features"])[-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    about = info["features"][FRONT]["info"]
    assert about == {
        "video.height": 64,
        "video.width": 96,
        "video.codec": "av1",
        "video.pix_fmt": "yuv420p",
        "video.fps": 10,
        "video.channels": 3,
        "has_audio": False,
        "video.g": 2,
        "video.crf": 30,
        "video.preset": 10,
        "video.fast_decode": 0,
        "video.video_backend": "pyav",
        "video.extra_options": {},
        "is_depth_map": False,
    }
    depth = info["features"]["observation.images.depth"]["info"]
    assert depth["is_depth_map"]
    assert (depth["depth_unit"], depth["video.codec"], depth["video.pix_fmt"]) == ("mm", "hevc", "gray12le")
    assert (depth["video.depth_min"], depth["video.depth_max"], depth["video.shift"]) == (0.01, 10.0, 3.5)


def test_columns_have_the_types_lerobot_writes(tmp_path):
    root = make_dataset(tmp_path / "toy", image_cameras={"observation.image": (32, 48)}, matrix=True, notes=True)
    file = pq.ParquetFile(root / "data/chunk-000/file-000.parquet")
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert types["observation.state"] == "fixed_size_list<element: float>[4]"
    assert types["next.reward"] == "float"
    assert types["next.done"] == "bool"
    assert types["timestamp"] == "float"
    assert types["index"] == "int64"
    assert types["note"] == "string"
    assert types["observation.image"] == "struct<bytes: binary, path: string>"
    assert FRONT not in types
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [15, 25, 12, 20]
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    types = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert types["observation.matrix"] == {"shape": [2, 3], "dtype": "float32", "_type": "Array2D"}
    assert types["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "List"}
    assert types["observation.image"] == {"_type": "Image"}


def test_the_datasets_library_reads_the_tables(tmp_path):
    import datasets

    root = make_dataset(tmp_path / "toy", image_cameras={"observation.image": (32, 48)}, matrix=True, language=True)
    files = [str(path) for path in sorted(root.glob("data/*/*.parquet"))]
    table = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    assert table.features["observation.matrix"] == datasets.Array2D((2, 3), "float32")
    assert np.array_equal(table[30]["observation.matrix"], (np.arange(6) + 30).reshape(2, 3))
    assert frame_code(np.asarray(table[30]["observation.image"])) == (1, 30)
    assert table[3]["language_events"][0]["tool_calls"][0]["function"]["name"] == "say"


def test_tasks_are_numbered_in_order_of_appearance(tmp_path):
    tasks = ["c", "a", "b"]
    root = make_dataset(tmp_path / "toy", episodes=(3, 3, 3, 3), tasks=tasks)
    assert open_metadata("x", root=root).tasks == tasks
    import pandas

    table = pandas.read_parquet(root / "meta/tasks.parquet")
    assert table.index.name == "task"
    assert table.index.tolist() == tasks
    assert table["task_index"].tolist() == [0, 1, 2]


def test_files_split_by_size_and_cameras_split_apart(tmp_path):
    rng = np.random.default_rng(0)
    features = {
        "observation.images.busy": {"dtype": "video", "shape": [32, 48, 3]},
        "observation.images.calm": {"dtype": "video", "shape": [32, 48, 3]},
        "action": {"dtype": "float32", "shape": [1], "names": None},
    }
    with new_writer(tmp_path / "w", features=features, video_files_size_in_mb=0.008, chunks_size=2) as writer:
        for row in range(40):
            writer.add_frame(
                {
                    "observation.images.busy": rng.integers(0, 255, (32, 48, 3), dtype=np.uint8),
                    "observation.images.calm": code_frame(row, (32, 48)),
                    "action": np.float32(row),
                    "task": "t",
                }
            )
            if row % 10 == 9:
                writer.save_episode()
    table = open_metadata("x", root=tmp_path / "w").episodes
    busy, calm = (table.video[f"observation.images.{name}"] for name in ("busy", "calm"))
    assert list(zip(busy.chunk, busy.file, strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(zip(calm.chunk, calm.file, strict=True)) == [(0, 0)] * 4
    assert busy.from_s.tolist() == [0.0] * 4
    assert calm.from_s.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert validate("x", LocalStorage(tmp_path / "w"), workers=1).problems == []


def test_place_episodes():
    places = place_episodes([4, 4, 4, 9, 1], [""] * 5, limit_bytes=10, first=(0, 0), chunks_size=2)
    assert places == [(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)]  # an episode may be larger than a file is meant to be
    by_header = place_episodes([1, 1, 1], ["a", "b", "b"], limit_bytes=10, first=(3, 7), chunks_size=1000)
    assert by_header == [(3, 7), (3, 8), (3, 8)]


def test_statistics_are_those_of_all_frames(tmp_path):
    root = make_dataset(tmp_path / "toy", matrix=True)
    stats = open_metadata("x", root=root).stats
    states = np.stack([state_of(row) for row in range(72)]).astype(np.float64)
    for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        assert np.array_equal(stats["observation.state"][name], np.quantile(states, q, axis=0))
    np.testing.assert_allclose(stats["observation.state"]["mean"], states.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats["observation.state"]["std"], states.std(axis=0), rtol=1e-12)
    assert stats["observation.matrix"]["mean"].shape == (3,)
    assert stats["next.done"]["max"] == [1.0]
    frames = np.stack([code_frame(row, (64, 96)) for row in range(72)]) / 255
    assert stats[FRONT]["count"] == [72]
    np.testing.assert_allclose(stats[FRONT]["mean"][:, 0, 0], frames.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(stats[FRONT]["std"][:, 0, 0], frames.std(axis=(0, 1, 2)), rtol=1e-9)
    assert "note" not in stats


def test_the_episode_table_has_each_episodes_own_statistics(tmp_path):
    root = make_dataset(tmp_path / "toy", episodes=(3, 5))
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert rows[1]["stats/episode_index/q01"] == [1.0]
    assert rows[1]["stats/frame_index/max"] == [4.0]
    assert rows[1]["stats/action/count"] == [5]
    assert np.shape(rows[1][f"stats/{FRONT}/mean"]) == (3, 1, 1)
    assert (rows[1]["dataset_from_index"], rows[1]["dataset_to_index"]) == (3, 8)


def test_the_caller_may_reuse_its_buffers(tmp_path):
    pixels, state = np.empty((32, 48, 3), np.uint8), np.empty(4, np.float32)
    with new_writer(tmp_path / "w") as writer:
        for row in range(12):
            pixels[:], state[:] = code_frame(row, (32, 48)), state_of(row)
            writer.add_frame(frame_of(row, **{FRONT: pixels, "observation.state": state}))
        pixels[:], state[:] = 0, 0
        writer.save_episode()
    assert_whole(tmp_path / "w", 12)


def test_language_columns_come_back(tmp_path):
    root = make_dataset(tmp_path / "toy", episodes=(6,), language=True)
    item = Dataset("x", root=root)[3]
    assert [row["content"] for row in item["language_persistent"]] == ["reach for the cube", "lift the cube"]
    assert item["language_events"][0]["tool_calls"][0]["function"]["arguments"] == {"text": "Here it is."}
    assert Dataset("x", root=root)[2]["language_events"] == []


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": None}, r"'action' is missing. Every frame needs"),
        ({"actoin": np.zeros(4, np.float32)}, r"'actoin' is not a feature of this dataset, did you mean 'action'\?"),
        ({"timestamp": 0.0}, r"'timestamp' is filled in by the writer"),
        ({"action": np.zeros(3, np.float32)}, r"action has shape \[3\]; expected \[4\]"),
        ({"action": np.zeros(4)}, r"action has dtype float64; expected float32.*astype\(np.float32\)"),
        ({FRONT: np.zeros((32, 64, 3), np.uint8)}, r"shape \[32, 64, 3\]; expected \[32, 48, 3\]"),
        ({FRONT: np.zeros((3, 32, 48), np.uint8)}, r"Transpose it to \(height, width, channels\)"),
        ({FRONT: np.zeros((32, 48, 3))}, r"dtype float64; expected uint8"),
        ({"task": None}, r"'task' is missing"),
        ({"task": ""}, r"expected a text that says what the robot should do"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_by_name(tmp_path, changes, message):
    with new_writer(tmp_path / "w") as writer:
        record(writer, 2)
        writer.add_frame(frame_of(2))
        with pytest.raises(DatasetError, match=message) as caught:
            writer.add_frame(frame_of(3, **changes))
        assert "episode 1, frame 1" in str(caught.value)
        writer.add_frame(frame_of(3))  # the episode goes on as if it had not been offered
        writer.save_episode()
    assert_whole(tmp_path / "w", 2, 2)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "features is empty"),
        ({"a/b": {"dtype": "float32", "shape": [1]}}, 'contains "/"'),
        ({"task": {"dtype": "string", "shape": [1]}}, r'frame\["task"\]'),
        ({"action": {"dtype": "flaot32", "shape": [1]}}, "flaot32"),
        ({"cam": {"dtype": "video", "shape": [3, 32, 48]}}, r"48 channels|expected \[height, width, channels\]"),
        ({"cam": {"dtype": "video", "shape": [32, 48, 1]}}, "is_depth_map"),
        ({"cam": {"dtype": "video", "shape": [33, 48, 3]}}, "48x33; video needs even sides"),
        ({"plan": {"dtype": "language", "shape": [1]}}, "language_persistent and language_events"),
    ],
)
def test_features_that_cannot_be_are_refused(tmp_path, features, message):
    with pytest.raises(DatasetError, match=message):
        new_writer(tmp_path / "w", features=features)
    assert not (tmp_path / "w").exists()


def test_depth_keeps_its_unit(tmp_path):
    features = {"depth": {"dtype": "image", "shape": [8, 8, 1], "info": {"is_depth_map": True}}}
    with new_writer(tmp_path / "w", features=features) as writer:
        writer.add_frame({"depth": np.ones((8, 8), np.uint16), "task": "t"})
        with pytest.raises(DatasetError, match=r"came as float32 \(m\), but the dataset holds them in mm"):
            writer.add_frame({"depth": np.ones((8, 8), np.float32), "task": "t"})
        with pytest.raises(DatasetError, match="expected uint16"):
            writer.add_frame({"depth": np.ones((8, 8), np.int32), "task": "t"})
        writer.save_episode()
    assert json.loads((tmp_path / "w/meta/info.json").read_text())["features"]["depth"]["info"]["depth_unit"] == "mm"


def test_what_cannot_be_started_or_ended(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown video codec 'hvec', did you mean 'hevc'\?"):
        new_writer(tmp_path / "w", codec="hvec")
    with pytest.raises(DatasetError, match=r"fps=30\.5"):
        new_writer(tmp_path / "w", fps=30.5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not empty"):
        new_writer(tmp_path / "full")
    writer = new_writer(tmp_path / "w")
    with pytest.raises(DatasetError, match="save_episode\\(\\) without a frame"):
        writer.save_episode()
    with pytest.raises(DatasetError, match="nothing to write"):
        writer.finalize()
    writer.add_frame(frame_of(0))
    with pytest.raises(DatasetError, match="1 frames of an unsaved episode"):
        writer.finalize()
    with pytest.raises(DatasetError, match="unfinished recording"):
        new_writer(tmp_path / "w")
    writer.save_episode()
    writer.finalize()
    with pytest.raises(DatasetError, match="this writer is closed"):
        writer.add_frame(frame_of(1))
    with pytest.raises(DatasetError, match="exists and is not empty"):
        new_writer(tmp_path / "w")


# What survives


def test_nothing_is_a_dataset_before_finalize(tmp_path):
    writer = new_writer(tmp_path / "w")
    record(writer, 4)
    assert {path.name for path in (tmp_path / "w").iterdir()} == {SCRATCH_DIR}
    writer.close()


def test_an_interrupted_recording_keeps_saved_episodes_and_goes_on(tmp_path):
    root = tmp_path / "w"

    def session() -> None:
        with new_writer(root) as writer:
            record(writer, 5, 3)
            writer.add_frame(frame_of(8))
            raise RuntimeError("the robot fell over")

    with pytest.raises(RuntimeError, match="the robot fell over"):
        session()
    with DatasetWriter.resume(root) as writer:
        assert (writer.num_episodes, writer.num_frames) == (2, 8)
        record(writer, 4)
    assert_whole(root, 5, 3, 4)


def test_a_killed_process_loses_only_the_open_episode(tmp_path):
    root = tmp_path / "w"
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.data.test_writer import *
writer = new_writer(Path({str(root)!r}), video_files_size_in_mb=1e-6)
record(writer, 5, 3)
writer.add_frame(frame_of(8))
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with DatasetWriter.resume(root) as writer:
        record(writer, 2)
    assert_whole(root, 5, 3, 2)


class PowerCut(BaseException):
    """Nothing in the package may catch this."""


SMALL = {"action": FEATURES["action"], FRONT: FEATURES[FRONT]}


def record_small(writer: DatasetWriter, length: int) -> None:
    for row in range(writer.num_frames, writer.num_frames + length):
        writer.add_frame({"action": action_of(row), FRONT: code_frame(row, (32, 48)), "task": "t"})
    writer.save_episode()


@pytest.mark.parametrize(("files", "goes_on"), [("one", True), ("many", False)])
def test_whatever_moment_the_power_fails_nothing_saved_is_lost(tmp_path, monkeypatch, files, goes_on):
    """Cuts before every rename and every deletion in turn, until one run gets through."""
    limits = {"data_files_size_in_mb": 1e-6, "video_files_size_in_mb": 1e-6} if files == "many" else {}
    real = {"replace": os.replace, "unlink": Path.unlink, "rmtree": recording_module.shutil.rmtree}
    for moment in range(200):
        root, left, saved = tmp_path / f"{files}{moment}", [moment], []

        def cut(name, left=left):
            def run(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    raise PowerCut
                return real[name](*arguments, **options)

            return run

        monkeypatch.setattr(os, "replace", cut("replace"))
        monkeypatch.setattr(Path, "unlink", cut("unlink"))
        monkeypatch.setattr(recording_module.shutil, "rmtree", cut("rmtree"))
        finished = False
        try:
            writer = new_writer(root, features=SMALL, durable=False, **limits)
            for length in (3, 2):
                record_small(writer, length)
                saved.append(length)
            writer.finalize()
            finished = True
        except PowerCut:
            pass
        monkeypatch.undo()
        if not (root / SCRATCH_DIR).exists() and not (root / "meta/info.json").exists():
            assert not saved
            continue
        try:
            writer = DatasetWriter.resume(root, codec="h264")
        except DatasetError:  # cut before there was anything to resume
            assert not saved
            continue
        # The cut may fall between an episode's rename and save_episode's return: then there is one more.
        assert writer.num_episodes - len(saved) in (0, 1)
        lengths = [3, 2][: writer.num_episodes]
        if goes_on:
            record_small(writer, 4)
            lengths.append(4)
        if lengths:
            writer.finalize()
            assert_every_row(root, *lengths)
        else:
            writer.close()
        if finished:
            return
    pytest.fail("200 renames and deletions for two episodes")


def test_episodes_are_added_to_a_finished_dataset(tmp_path):
    root = tmp_path / "w"
    with new_writer(root) as writer:
        record(writer, 5, 3)
    before = {path: path.read_bytes() for path in [*root.glob("data/*/*"), *root.glob("videos/*/*/*")]}
    with DatasetWriter.resume(root, codec="h264") as writer:
        assert (writer.num_episodes, writer.num_frames) == (2, 8)
        record(writer, 4)
    with DatasetWriter.resume(root, codec="av1") as writer:
        record(writer, 2)
    assert_whole(root, 5, 3, 4, 2)
    assert all(path.read_bytes() == content for path, content in before.items())
    table = open_metadata("x", root=root).episodes
    assert table.data_file.tolist() == [0, 0, 1, 2]
    assert table.video[FRONT].file.tolist() == [0, 0, 1, 2]
    assert table.video[FRONT].from_s.tolist() == [0.0, 0.5, 0.0, 0.0]


def test_statistics_after_an_append_cover_everything(tmp_path):
    with new_writer(tmp_path / "once") as writer:
        record(writer, 15, 25, 12)
    with new_writer(tmp_path / "twice") as writer:
        record(writer, 15, 25)
    with DatasetWriter.resume(tmp_path / "twice", codec="h264") as writer:
        record(writer, 12)
    once, twice = (open_metadata("x", root=tmp_path / name).stats for name in ("once", "twice"))
    for name in ("observation.state", "action", "timestamp", "index"):
        for statistic, value in once[name].items():
            assert np.array_equal(value, twice[name][statistic]), (name, statistic)
    for statistic in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(twice[FRONT][statistic], once[FRONT][statistic], rtol=1e-9)
    for statistic in ("q01", "q10", "q50", "q90", "q99"):  # estimated, see merged_summaries
        assert np.all(np.abs(twice[FRONT][statistic] - once[FRONT][statistic]) < 0.1 * once[FRONT]["std"] + 1e-9)


def test_adding_nothing_changes_nothing(tmp_path):
    root = make_dataset(tmp_path / "toy", episodes=(4, 3))
    before = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with DatasetWriter.resume(root):
        pass
    DatasetWriter.resume(root).close()
    assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_episodes_can_be_added_to_a_table_without_statistics(tmp_path):
    root = make_dataset(tmp_path / "toy", episodes=(4, 3), cameras={FRONT: (32, 48)}, rewards=False)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select([name for name in table.column_names if not name.startswith("stats/")]), path)
    with DatasetWriter.resume(root, codec="h264") as writer:
        record(writer, 2)
    assert_whole(root, 4, 3, 2)


def test_what_cannot_be_resumed(tmp_path):
    with pytest.raises(DatasetError, match="neither a dataset"):
        DatasetWriter.resume(tmp_path)
    root = make_dataset(tmp_path / "toy", episodes=(2,))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_episodes": 3}))
    with pytest.raises(DatasetError, match=r"info\.json counts 3 episodes, the episode table has 1"):
        DatasetWriter.resume(root)
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(DatasetError, match="convert_dataset_v21_to_v30"):
        DatasetWriter.resume(root)


def test_a_discarded_take_leaves_no_trace(tmp_path):
    with new_writer(tmp_path / "w") as writer:
        record(writer, 3)
        for row in range(40):
            writer.add_frame(frame_of(row))
        writer.discard_episode()
        record(writer, 2)
    assert_whole(tmp_path / "w", 3, 2)


def test_recounting_what_was_written_gives_the_same_numbers(tmp_path):
    root = make_dataset(tmp_path / "toy", files="many", depth_images={"observation.depth": (32, 48)})
    metadata = open_metadata("x", root=root)
    counted = count_stats(metadata)
    for name, entry in metadata.stats.items():
        for statistic, value in entry.items():
            if name == FRONT:  # from decoded frames
                assert np.all(np.abs(counted[name][statistic] - value) < 0.1), statistic
            else:
                assert np.array_equal(counted[name][statistic], value), (name, statistic)


def test_memory_does_not_grow_with_the_episode(tmp_path):
    """Frames of cameras go to the encoder, not to a list: what is kept per frame is a few kilobytes."""
    import tracemalloc

    features = {FRONT: {"dtype": "video", "shape": [240, 320, 3]}}
    writer = new_writer(tmp_path / "w", features=features)
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    kept = []
    tracemalloc.start()
    for number in range(120):
        writer.add_frame({FRONT: frame, "task": "t"})
        if number in (59, 119):
            deadline = time.monotonic() + 30
            while writer._episode._encoders[FRONT]._frames.qsize() and time.monotonic() < deadline:
                time.sleep(0.01)
            kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    writer.close()
    assert kept[1] - kept[0] < 60 * frame.nbytes / 10


def test_depth_is_added_with_the_coding_the_dataset_has(tmp_path):
    near = {"is_depth_map": True, "video.depth_min": 0.1, "video.depth_max": 1.0, "video.use_log": False}
    features = {"depth": {"dtype": "video", "shape": [64, 64, 1], "info": near}}
    frame = np.linspace(150, 950, 64 * 64).reshape(64, 64).astype(np.uint16)
    with new_writer(tmp_path / "w", features=features) as writer:
        writer.add_frame({"depth": frame, "task": "t"})
        writer.save_episode()
    with DatasetWriter.resume(tmp_path / "w") as writer:
        writer.add_frame({"depth": frame, "task": "t"})
        writer.save_episode()
    dataset = Dataset("x", root=tmp_path / "w")
    assert dataset.meta.features["depth"].info["video.depth_max"] == 1.0
    for row in (0, 1):
        assert np.abs(dataset[row]["depth"][0].numpy() - frame).max() <= 1
