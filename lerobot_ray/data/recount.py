"""The statistics of a dataset, counted again from its files.

The work is cut into tasks that know nothing of each other: a pass over the columns of one parquet file, the sampled
frames of one camera in one file. Who runs them is the caller's business (`Runner`): this process, several, or a Ray
cluster. Results are taken in the order of files and merged episode by episode, so the numbers are the same, to the last
bit, in every case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import EPISODE_INDEX, Stats
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.quantiles import Counts, QuantileSearch, SparseCounts, add_counts, count_digits
from lerobot_ray.data.stats import STATISTICS, Moments
from lerobot_ray.data.storage import Storage

Task = TypeVar("Task")
Result = TypeVar("Result")
Runner = Callable[[Callable[[Task], Result], Sequence[Task]], Iterator[Result]]
"""Applies a module-level function to every task and yields the results in the order of the tasks."""


def run_here(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """The plainest Runner: one task after another in this process."""
    return map(function, tasks)


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


__all__ = ["Runner", "Stats", "TablePart", "TablePass", "column_array", "read_table_pass", "run_here", "tabular_stats"]
