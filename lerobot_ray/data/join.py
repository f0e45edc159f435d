"""One dataset from recordings that were made side by side: their saved episodes, one after another, nothing decoded.

Each recording is an unfinished one (`DatasetWriter`, closed without `finalize`) with the same features and settings. An
episode keeps its files; only its places in the dataset (its number, its rows, its tasks) are written anew.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import INFO_PATH
from lerobot_ray.core.types import EPISODE_INDEX, INDEX, TASK_INDEX
from lerobot_ray.data import manifest
from lerobot_ray.data.recording import Recording
from lerobot_ray.data.stats import as_json, column_stats

SETTINGS = ("fps", "features", "robot_type", "codec")
"""What all recordings must have in common."""


def join_recordings(parts: Sequence[Path], root: Path, *, repo_id: str, progress: bool | None = None) -> int:
    """Makes the dataset `root` of the recordings in these folders, in this order; its number of episodes.

    Their episodes move: afterwards the folders hold nothing worth keeping. `root` must not be a dataset yet.
    """
    recordings = [(part, loaded) for part in parts if (loaded := Recording.load(part)) is not None and loaded.episodes]
    if not recordings:
        raise DatasetError(f"there is no saved episode in {len(parts)} recordings to make {root} of.")
    if (root / INFO_PATH).exists():
        raise DatasetError(f"{root} is a dataset already. Choose another folder, or delete it.")
    first = recordings[0][1].header
    for part, recording in recordings:
        if differing := [name for name in SETTINGS if recording.header[name] != first[name]]:
            raise DatasetError(f"{part} was recorded with another {differing[0]} than {recordings[0][0]}.")
    joined = Recording.start(root, {**first, "repo_id": repo_id}, durable=False)
    tasks: dict[str, int] = {}
    for _, recording in recordings:
        for document in recording.episodes:
            _take(joined, recording, document, tasks)
    manifest.finalize(joined, progress=progress)
    return len(joined.episodes)


def _take(joined: Recording, recording: Recording, document: dict[str, Any], tasks: dict[str, int]) -> None:
    """Moves one saved episode into `joined`, as its next."""
    source = recording.folder / "episodes" / f"{document[EPISODE_INDEX]:06d}"
    folder = joined.open_episode()
    with np.load(source / "cameras.npz") as arrays:
        counts = dict(arrays)
    for key in joined.video_keys:
        os.replace(source / f"{key}.mp4", folder / f"{key}.mp4")
    table = pq.read_table(source / "data.parquet", partitioning=None)
    for task in document["tasks"]:
        tasks.setdefault(task, len(tasks))
    there = _numbered_tasks(recording)
    rows = np.arange(len(table)) + sum(episode["length"] for episode in joined.episodes)
    columns = {
        EPISODE_INDEX: np.full(len(table), len(joined.episodes)),
        INDEX: rows,
        TASK_INDEX: np.array([tasks[there[number]] for number in table[TASK_INDEX].to_pylist()]),
    }
    stats = dict(document["stats"])
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(place), pa.array(values, type=table.schema.field(place).type)
        )
        stats[name] = as_json({name: column_stats(values)})[name]
    pq.write_table(table, folder / "data.parquet", compression="snappy", use_dictionary=True)
    joined.save_episode({**document, EPISODE_INDEX: len(joined.episodes), "stats": stats}, counts)


def _numbered_tasks(recording: Recording) -> list[str]:
    """The recording's tasks by their numbers."""
    seen = dict.fromkeys(recording.header["base"]["tasks"])
    for document in recording.episodes:
        seen |= dict.fromkeys(document["tasks"])
    return list(seen)
