"""One entry per episode: how long it is and where its rows and video frames are.

A dataset of 100 000 episodes is a handful of numpy columns here. The per-episode statistics, which make up most of the
bytes of `meta/episodes`, are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import EPISODES_DIR
from lerobot_ray.data.storage import Storage

_ROW_COLUMNS = (
    "episode_index",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
)
_VIDEO_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


@dataclass(frozen=True)
class VideoPlaces:
    """Where each episode is in the mp4 files of one camera. Times are seconds inside that file, half-open."""

    chunk: np.ndarray
    file: np.ndarray
    from_s: np.ndarray
    to_s: np.ndarray


@dataclass(frozen=True)
class DataFiles:
    """The data files in row order: file k holds rows [start[k], stop[k])."""

    chunk: np.ndarray
    file: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class EpisodeTable:
    """Columns with one entry per episode; entry i is episode i. Row ranges are half-open ranges of global rows."""

    length: np.ndarray
    from_index: np.ndarray
    to_index: np.ndarray
    data_chunk: np.ndarray
    data_file: np.ndarray
    video: dict[str, VideoPlaces]
    task_lists: pa.ListArray

    def __len__(self) -> int:
        return len(self.length)

    @property
    def num_frames(self) -> int:
        return int(self.to_index[-1]) if len(self) else 0

    @cached_property
    def first_task(self) -> list[str]:
        """The first task of each episode; "" where there is none."""
        offsets = self.task_lists.offsets.to_numpy()
        has_task = np.diff(offsets) > 0
        labels = self.task_lists.values
        # Python shares the few distinct strings instead of holding one per episode.
        distinct = pc.dictionary_encode(labels.take(pa.array(offsets[:-1][has_task])))
        words = [*distinct.dictionary.to_pylist(), ""]
        codes = np.full(len(self), len(words) - 1)
        codes[has_task] = distinct.indices.to_numpy()
        return [words[code] for code in codes]

    def tasks(self, episode: int) -> list[str]:
        return self.task_lists[episode].as_py()

    def episode_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """The episode each global row belongs to. Empty episodes own no rows."""
        return np.searchsorted(self.from_index, rows, side="right") - 1

    @cached_property
    def data_files(self) -> DataFiles:
        keys = np.stack([self.data_chunk, self.data_file], axis=1)
        begins = np.ones(len(self), dtype=bool)
        begins[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        first = np.flatnonzero(begins)
        start = self.from_index[first]
        return DataFiles(
            self.data_chunk[first], self.data_file[first], start, np.append(start[1:], self.num_frames).astype(np.int64)
        )


def read_episodes(storage: Storage, *, video_keys: Sequence[str], where: str) -> EpisodeTable:
    """The episode table of a dataset, read column by column from all its files. `where` begins error messages."""
    paths = storage.glob(f"{EPISODES_DIR}/*/*.parquet")
    if not paths:
        raise DatasetError(
            f"{where}: no files under {EPISODES_DIR}/. The copy is incomplete: fetch it again, or check that the "
            "recording was finalized."
        )
    video_columns = [f"videos/{key}/{column}" for key in video_keys for column in _VIDEO_COLUMNS]
    wanted = [*_ROW_COLUMNS, *video_columns, "tasks"]
    table = pa.concat_tables([_read_file(storage.local(path), path, wanted, where) for path in paths])
    numbers = {name: _numbers(table, name, where) for name in [*_ROW_COLUMNS, *video_columns]}

    _check_positions(numbers["episode_index"], where)
    episodes = EpisodeTable(
        length=numbers["length"],
        from_index=numbers["dataset_from_index"],
        to_index=numbers["dataset_to_index"],
        data_chunk=numbers["data/chunk_index"],
        data_file=numbers["data/file_index"],
        video={
            key: VideoPlaces(*(numbers[f"videos/{key}/{column}"] for column in _VIDEO_COLUMNS)) for key in video_keys
        },
        task_lists=_task_lists(table),
    )
    _check_ranges(episodes, where)
    del table
    pa.default_memory_pool().release_unused()  # reading took ten times what is kept
    return episodes


def read_parquet(file: Path, path: str, columns: Sequence[str] | None, where: str) -> pa.Table:
    """A metadata table as plain Arrow. An unreadable file is named, with what to do about it."""
    try:
        return pq.ParquetFile(file).read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{where}: {path} cannot be read ({error}). It is truncated or not parquet: fetch it again."
        ) from error


def _read_file(file: Path, path: str, wanted: Sequence[str], where: str) -> pa.Table:
    try:
        present = set(pq.read_schema(file).names)
    except (pa.ArrowException, OSError):
        present = set(wanted)  # let the read below name the file
    missing = [name for name in wanted if name not in present and name != "tasks"]
    if missing:
        raise DatasetError(
            f"{where}: {path} has no column {missing[0]!r}, which a v3.0 episode table needs. Convert or fetch the "
            "dataset again."
        )
    table = read_parquet(file, path, [name for name in wanted if name in present], where)
    if "tasks" not in present:
        table = table.append_column("tasks", pa.array([[]] * len(table), pa.list_(pa.string())))
    # `tasks` is the only column whose arrow type varies between writers (list or large_list of string).
    index = table.schema.get_field_index("tasks")
    table = table.set_column(index, "tasks", table.column(index).cast(pa.list_(pa.string())))
    return table.select(wanted).replace_schema_metadata(None)


def _numbers(table: pa.Table, name: str, where: str) -> np.ndarray:
    column = table.column(name)
    if column.null_count:
        episode = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DatasetError(f"{where}: {name} is missing for episode {episode} in {EPISODES_DIR}/.")
    dtype: Any = np.float64 if name.endswith("timestamp") else np.int64
    return column.to_numpy().astype(dtype, copy=False)


def _task_lists(table: pa.Table) -> pa.ListArray:
    lists = table.column("tasks").combine_chunks()
    return pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists


def _check_positions(episode_index: np.ndarray, where: str) -> None:
    wrong = np.flatnonzero(episode_index != np.arange(len(episode_index)))
    if len(wrong):
        row = int(wrong[0])
        raise DatasetError(
            f"{where}: row {row} of {EPISODES_DIR}/ is episode {int(episode_index[row])}; row i must be episode i. "
            "A file is missing or extra there: fetch the dataset again."
        )


def _check_ranges(episodes: EpisodeTable, where: str) -> None:
    starts = np.concatenate([[0], episodes.to_index[:-1]]) if len(episodes) else episodes.from_index
    for name, wrong in (
        (
            "length is not dataset_to_index - dataset_from_index",
            episodes.to_index - episodes.from_index != episodes.length,
        ),
        ("its rows do not begin where the previous episode ends", episodes.from_index != starts),
        ("length is negative", episodes.length < 0),
    ):
        if wrong.any():
            episode = int(np.flatnonzero(wrong)[0])
            raise DatasetError(
                f"{where}: episode {episode} in {EPISODES_DIR}/: {name} (rows {int(episodes.from_index[episode])} to "
                f"{int(episodes.to_index[episode])}, length {int(episodes.length[episode])}). The table is damaged: "
                "fetch the dataset again, or write it anew."
            )
    files = episodes.data_files
    places, counts = np.unique(np.stack([files.chunk, files.file], axis=1), axis=0, return_counts=True)
    if (counts > 1).any():
        chunk, file = places[counts > 1][0]
        raise DatasetError(
            f"{where}: the episodes of data file chunk-{chunk:03d}/file-{file:03d} are not next to each other in "
            f"{EPISODES_DIR}/. Write the dataset anew with LeRobot's tools."
        )
