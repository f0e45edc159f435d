"""The statistics of a dataset, counted again from its files.

The work is cut into tasks that know nothing of each other: a pass over the columns of one parquet file, the sampled
frames of one camera in one file. Who runs them is the caller's business (`Runner`): this process, several, or a Ray
cluster. Results are taken in the order of files and merged episode by episode, so the numbers are the same, to the last
bit, in every case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import EPISODE_INDEX, Stats
from lerobot_ray.data.depth import depth_coding
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.images import decode_image
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.quantiles import Counts, QuantileSearch, SparseCounts, add_counts, count_digits
from lerobot_ray.data.runners import Runner, run_here
from lerobot_ray.data.stats import (
    STATISTICS,
    Moments,
    ValueCounts,
    byte_counts,
    has_stats,
    pixel_unit,
    sampled_frames,
    subsampled,
)
from lerobot_ray.data.storage import Storage
from lerobot_ray.data.video import VideoReader

FRAMES_AT_A_TIME = 32


def count_stats(metadata: DatasetMetadata, *, run: Runner = run_here, cameras: bool = True) -> Stats:
    """Statistics of the whole dataset, as stats.json has them; without `cameras`, of the tables only.

    Cameras are looked at as LeRobot does, in about length**0.75 frames per episode (at least 100), decoded from what is
    stored: coding losses make them differ a little from numbers taken while recording.
    """
    table = metadata.episodes
    files = [metadata.data_path(*place) for place in zip(table.data_files.chunk, table.data_files.file, strict=True)]
    columns = [spec for spec in metadata.features.values() if spec.is_numeric]
    stats: dict[str, Any] = tabular_stats([(metadata.storage, path) for path in files], columns, run=run)
    tasks = [task for key in metadata.camera_keys for task in camera_tasks(metadata, key)] if cameras else []
    counts: dict[str, ValueCounts] = {}
    for task, part in zip(tasks, run(count_camera, tasks), strict=True):
        counts[task.spec.name] = counts[task.spec.name].merged(part) if task.spec.name in counts else part
    stats |= {name: part.stats(unit=pixel_unit(metadata.features[name])) for name, part in counts.items()}
    return {name: stats[name] for name, spec in metadata.features.items() if has_stats(spec) and name in stats}


@dataclass(frozen=True)
class TablePass:
    """One pass over some columns of one data file."""

    storage: Storage
    path: str
    columns: tuple[FeatureSpec, ...]
    wanted: Mapping[str, list[list[int]]]
    """Per column and component, the leading key parts to count."""
    number: int
    """0 for the first pass, which also takes the moments."""


@dataclass(frozen=True)
class TablePart:
    """What a pass found in one file."""

    moments: dict[str, list[Moments]]
    """Per column, one per episode in the file; first pass only."""
    digits: dict[str, list[SparseCounts]]
    """Per column, one per component."""


def read_table_pass(task: TablePass) -> TablePart:
    """Runs one pass. Pure: it may run anywhere, any number of times."""
    path = task.storage.local(task.path)
    names = {EPISODE_INDEX, *(spec.name for spec in task.columns)}
    table = pq.read_table(path, columns=sorted(names), partitioning=None)
    starts = np.flatnonzero(np.diff(table[EPISODE_INDEX].to_numpy(), prepend=-1))
    part = TablePart({}, {})
    for spec in task.columns:
        values = column_array(table[spec.name], spec, where=task.path)
        if task.number == 0:
            part.moments[spec.name] = [Moments.of(rows) for rows in np.split(values, starts[1:])]
        flat = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        part.digits[spec.name] = [
            count_digits(flat[:, d], spec.numpy_dtype, wanted=wanted, done_passes=task.number)
            for d, wanted in enumerate(task.wanted[spec.name])
        ]
    return part


def tabular_stats(
    files: Sequence[tuple[Storage, str]], columns: Sequence[FeatureSpec], *, run: Runner = run_here
) -> dict[str, dict[str, np.ndarray]]:
    """Exact statistics of number columns over data files, which are given in the order of the dataset."""
    width = {spec.name: spec.item_shape[-1] if spec.item_shape else 1 for spec in columns}
    searches = {s.name: [QuantileSearch(s.numpy_dtype) for _ in range(width[s.name])] for s in columns}
    moments: dict[str, Moments] = {}
    number, left = 0, list(columns)
    while left:
        wanted = {spec.name: [search.wanted for search in searches[spec.name]] for spec in left}
        tasks = [TablePass(storage, path, tuple(left), wanted, number) for storage, path in files]
        totals: dict[str, list[Counts]] = {spec.name: [{} for _ in range(width[spec.name])] for spec in left}
        for part in run(read_table_pass, tasks):
            for name, episodes in part.moments.items():
                for piece in episodes:
                    moments[name] = moments[name].merged(piece) if name in moments else piece
            for name, found in part.digits.items():
                for total, counts in zip(totals[name], found, strict=True):
                    add_counts(total, counts)
        for spec in left:
            for search, total in zip(searches[spec.name], totals[spec.name], strict=True):
                search.advance(total)
        number, left = number + 1, [spec for spec in left if not all(search.done for search in searches[spec.name])]
    return {spec.name: _finished(moments[spec.name], searches[spec.name]) for spec in columns}


def _finished(moments: Moments, searches: Iterable[QuantileSearch]) -> dict[str, np.ndarray]:
    found = [search.quantiles() for search in searches]
    stats = {**moments.stats(), **{name: np.array([entry[name] for entry in found]) for name in found[0]}}
    return {name: stats[name] for name in STATISTICS}


def column_array(column: pa.ChunkedArray, spec: FeatureSpec, *, where: str) -> np.ndarray:
    """A number column as an array (rows, *shape), whatever list types the file has it in."""
    array: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    rows = len(array)
    while isinstance(array, pa.ExtensionArray) or pa.types.is_nested(array.type):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    values = array.to_numpy(zero_copy_only=False)
    if values.size != rows * int(np.prod(spec.item_shape, dtype=np.int64)):
        raise DatasetError(
            f"{where}: column {spec.name} holds {values.size} numbers in {rows} rows; info.json says shape "
            f"{list(spec.shape)}. Correct the shape in meta/info.json or write the file again."
        )
    return values.astype(spec.numpy_dtype, copy=False).reshape(rows, *spec.item_shape)


@dataclass(frozen=True)
class CameraTask:
    """The sampled frames of one camera in one file."""

    storage: Storage
    path: str
    spec: FeatureSpec
    frames: np.ndarray
    """Of a video the times in seconds, of a data file the row numbers within it."""
    tolerance_s: float


def camera_tasks(metadata: DatasetMetadata, key: str) -> list[CameraTask]:
    """One task per file that holds frames of camera `key`, in the order of files."""
    spec, table = metadata.features[key], metadata.episodes
    if spec.is_video:
        places = table.video[key]
        chunk, file = places.chunk, places.file
        path_of = lambda at: metadata.video_path(key, *at)  # noqa: E731
    else:
        chunk, file = table.data_chunk, table.data_file
        path_of = lambda at: metadata.data_path(*at)  # noqa: E731
    first_row = {(c, f): start for c, f, start in zip(*_first_rows(metadata), strict=True)}
    by_file: dict[tuple[int, int], list[np.ndarray]] = {}
    for episode in np.flatnonzero(table.length > 0):
        at = (int(chunk[episode]), int(file[episode]))
        sampled = sampled_frames(int(table.length[episode]))
        start = places.from_s[episode] if spec.is_video else table.from_index[episode] - first_row[at]
        by_file.setdefault(at, []).append(start + (sampled / metadata.fps if spec.is_video else sampled))
    # Statistics need no exact frame: half a frame of tolerance takes files whose clock is a little off.
    half = 0.5 / metadata.fps
    return [
        CameraTask(metadata.storage, path_of(at), spec, np.concatenate(by_file[at]), half) for at in sorted(by_file)
    ]


def _first_rows(metadata: DatasetMetadata) -> tuple[list[int], list[int], list[int]]:
    files = metadata.episodes.data_files
    return files.chunk.tolist(), files.file.tolist(), files.start.tolist()


def count_camera(task: CameraTask) -> ValueCounts:
    """Counts the pixel values of one task's frames. Pure: it may run anywhere, any number of times."""
    counts: ValueCounts | None = None
    for frames in _decoded(task):
        if task.spec.is_depth:
            part = ValueCounts.of_depth(np.stack([subsampled(frame) for frame in frames]))
        else:
            part = ValueCounts.of_bytes(np.sum([byte_counts(frame) for frame in frames], axis=0), frames=len(frames))
        counts = counts.merged(part) if counts else part
    assert counts is not None
    return counts


def _decoded(task: CameraTask) -> Iterator[np.ndarray | list[np.ndarray]]:
    """The task's frames, some at a time: uint8 (H, W, C), or depth in the unit of the recording."""
    path, spec = task.storage.local(task.path), task.spec
    pieces = np.array_split(task.frames, max(1, -(-len(task.frames) // FRAMES_AT_A_TIME)))
    if spec.is_image:
        table = pq.read_table(path, columns=[spec.name], partitioning=None)
        for rows in pieces:
            yield [decode_image(struct, depth=spec.is_depth) for struct in table[spec.name].take(rows).to_pylist()]
        return
    coding = depth_coding(spec.info)
    with VideoReader(pixel_format="gray12le" if spec.is_depth else "rgb24") as reader:
        for times_s in pieces:
            frames = reader.read(path, times_s, tolerance_s=task.tolerance_s)
            if spec.is_depth:
                frames = coding.decode(frames)
                frames = np.rint(frames).astype(np.uint16) if coding.unit == "mm" else frames
            yield frames
