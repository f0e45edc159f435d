"""Recordings made side by side become the dataset that one recorder would have written."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot_ray import dataset
from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.join import join_recordings
from lerobot_ray.data.writer import DatasetWriter

FEATURES = {
    "observation.images.top": {"dtype": "video", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
    "action": {"dtype": "float32", "shape": (2,), "names": None},
}
TASKS = ["push", "pull", "push", "lift", "pull"]


def open_writer(root, *, fps=10):
    return DatasetWriter(root, repo_id="me/parts", fps=fps, features=FEATURES, codec="h264", durable=False)


def add_episode(writer, number):
    draws = np.random.default_rng(number)
    for _ in range(4 + number):
        writer.add_frame(
            {
                "observation.images.top": draws.integers(0, 255, (32, 48, 3), dtype=np.uint8),
                "observation.state": draws.normal(size=2).astype(np.float32),
                "action": draws.normal(size=2).astype(np.float32),
                "task": TASKS[number],
            }
        )
    writer.save_episode()


def record_parts(folder, *groups):
    """A recording per group of episodes."""
    for group in groups:
        writer = open_writer(folder / f"part-{group[0]}")
        for number in group:
            add_episode(writer, number)
        writer.close()
    return [folder / f"part-{group[0]}" for group in groups]


def contents(root):
    episodes = pq.read_table(root / "meta" / "episodes", partitioning=None)
    return {
        "rows": pq.read_table(root / "data", partitioning=None).to_pylist(),
        "episodes": episodes.to_pylist(),
        "tasks": pq.read_table(root / "meta" / "tasks.parquet").to_pylist(),
        "stats": json.loads((root / "meta" / "stats.json").read_text()),
        "info": json.loads((root / "meta" / "info.json").read_text()),
    }


def test_joined_is_as_if_recorded_in_one_go(tmp_path, capsys):
    with open_writer(tmp_path / "one") as writer:
        for number in range(5):
            add_episode(writer, number)
    parts = record_parts(tmp_path, [0, 1], [2], [3, 4])
    assert join_recordings(parts, tmp_path / "joined", repo_id="me/parts") == 5
    assert contents(tmp_path / "joined") == contents(tmp_path / "one")
    assert dataset.main(["validate", str(tmp_path / "joined")]) == 0, capsys.readouterr().out


def test_the_order_is_that_of_the_call(tmp_path):
    first, second = record_parts(tmp_path, [3], [1])
    join_recordings([second, first], tmp_path / "joined", repo_id="me/parts")
    rows = pq.read_table(tmp_path / "joined" / "data", partitioning=None)
    assert np.bincount(rows["episode_index"]).tolist() == [5, 7]
    assert [row["task"] for row in contents(tmp_path / "joined")["tasks"]] == ["pull", "lift"]


def test_a_recording_without_a_saved_episode_adds_none(tmp_path):
    (whole,) = record_parts(tmp_path, [0])
    assert join_recordings([tmp_path / "never", whole], tmp_path / "joined", repo_id="me/parts") == 1


def test_recordings_must_agree(tmp_path):
    (first,) = record_parts(tmp_path, [0])
    other = open_writer(tmp_path / "other", fps=20)
    add_episode(other, 1)
    other.close()
    with pytest.raises(DatasetError, match="recorded with another fps"):
        join_recordings([first, tmp_path / "other"], tmp_path / "joined", repo_id="me/parts")


def test_a_dataset_is_not_written_over(tmp_path):
    (part,) = record_parts(tmp_path, [0])
    join_recordings([part], tmp_path / "joined", repo_id="me/parts")
    again = record_parts(tmp_path / "more", [1])
    with pytest.raises(DatasetError, match="is a dataset already"):
        join_recordings(again, tmp_path / "joined", repo_id="me/parts")
