"""Tabular columns of a dataset, by global row number, at the speed of memory.

Every data file becomes a memory-mapped Arrow file shared by all processes of the machine (`frame_files`). Gathers go
file by file over views of the mapping: no Python per row, and no copy but the result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import INDEX
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.frame_files import converted_file
from lerobot_ray.data.language import language_rows
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.storage import cache_home

MAX_OPEN_FILES = 256


class FrameTable:
    """All tabular columns of a dataset; rows are global row numbers, in any order, repeats allowed.

    One per process; forgets its open files when pickled. Threads may share it.
    """

    def __init__(
        self, metadata: DatasetMetadata, *, cache_dir: Path | None = None, max_open: int = MAX_OPEN_FILES
    ) -> None:
        self.metadata = metadata
        self.cache_dir = Path(cache_dir) if cache_dir is not None else cache_home() / "frames"
        self.max_open = max_open
        self._files = metadata.episodes.data_files
        self._forget()

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        """A numeric feature at `rows`: shape `(*rows.shape, *item_shape)`, dtype of the feature."""
        spec = self._spec(name)
        if not spec.is_numeric:
            raise DatasetError(f"{self.metadata.repo_id}: {name} is {spec.dtype}, not a column of numbers.")
        rows = np.asarray(rows, dtype=np.int64)
        flat = rows.reshape(-1)
        groups = list(self._by_file(flat))
        if len(groups) == 1:
            file, _ = groups[0]
            values = np.take(self._open(file).array(spec), flat - self._files.start[file], axis=0)
        else:
            values = np.empty((len(flat), *spec.item_shape), dtype=spec.numpy_dtype)
            for file, places in groups:
                values[places] = self._open(file).array(spec)[flat[places] - self._files.start[file]]
        return values.reshape(*rows.shape, *spec.item_shape)

    def objects(self, name: str, rows: np.ndarray) -> list[Any]:
        """What is not numbers: str for strings, list of dicts for language columns, encoded bytes for images."""
        spec = self._spec(name)
        if spec.is_numeric or spec.is_video:
            raise DatasetError(f"{self.metadata.repo_id}: {name} is {spec.dtype}, not a column of objects.")
        rows = np.asarray(rows, dtype=np.int64)
        found: list[Any] = [None] * len(rows)
        for file, places in self._by_file(rows):
            values = self._open(file).column(name).take(pa.array(rows[places] - self._files.start[file])).to_pylist()
            for place, value in zip(places.tolist(), values, strict=True):
                found[place] = value
        return [language_rows(rows) for rows in found] if spec.is_language else found

    def prefetch(self, rows: np.ndarray) -> None:
        """The files of these rows are wanted soon. Returns at once."""
        files = np.unique(self._file_of(np.asarray(rows, dtype=np.int64)))
        self.metadata.storage.prefetch([self._path(file) for file in files.tolist()])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._opened: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def _spec(self, name: str) -> FeatureSpec:
        try:
            return self.metadata.features[name]
        except KeyError:
            raise DatasetError(f"{self.metadata.repo_id} has no feature {name}.") from None

    def _path(self, file: int) -> str:
        return self.metadata.data_path(self._files.chunk[file], self._files.file[file])

    def _file_of(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) and (rows.min() < 0 or rows.max() >= self.metadata.total_frames):
            raise IndexError(f"rows {rows.min()}…{rows.max()} of a dataset with {self.metadata.total_frames} frames")
        return np.searchsorted(self._files.start, rows, side="right") - 1

    def _by_file(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(file number, places in `rows` that are in it), file by file."""
        file_of = self._file_of(rows)
        if len(rows) == 0:
            return
        if file_of.min() == file_of.max():
            yield int(file_of[0]), np.arange(len(rows))
            return
        order = np.argsort(file_of, kind="stable")
        ends = np.flatnonzero(np.diff(file_of[order])) + 1
        for places in np.split(order, ends):
            yield int(file_of[places[0]]), places

    def _open(self, file: int) -> _OpenFile:
        with self._lock:
            opened = self._opened.pop(file, None)
            if opened is None:
                opened = self._map(file)
                while len(self._opened) >= self.max_open:
                    self._opened.popitem(last=False)
            self._opened[file] = opened
            return opened

    def _map(self, file: int) -> _OpenFile:
        metadata, path = self.metadata, self._path(file)
        converted = converted_file(
            metadata.storage.local(path),
            path,
            identity=metadata.storage.identity(),
            features=metadata.features,
            cache_dir=self.cache_dir,
            where=metadata.repo_id,
        )
        opened = _OpenFile(converted)
        self._check_rows(opened, path, int(self._files.start[file]), int(self._files.stop[file]))
        return opened

    def _check_rows(self, opened: _OpenFile, path: str, start: int, stop: int) -> None:
        if opened.num_rows != stop - start:
            raise DatasetError(
                f"{self.metadata.repo_id}: {path} holds {opened.num_rows} rows, the episode table says {stop - start}. "
                "The file is incomplete or of another version of the dataset: fetch it again."
            )
        index = opened.array(self.metadata.features[INDEX])
        if len(index) and (index[0] != start or index[-1] != stop - 1):
            raise DatasetError(
                f"{self.metadata.repo_id}: {path} holds rows {index[0]} to {index[-1]}, the episode table says {start} "
                f"to {stop - 1}. The file is of another version of the dataset: fetch it again."
            )


class _OpenFile:
    """One mapped Arrow file and the numpy views taken of it so far."""

    def __init__(self, file: Path) -> None:
        # The mapping stays valid for as long as a view of it is alive, even after the file is replaced or removed.
        self._batch = pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
        self._views: dict[str, np.ndarray] = {}

    @property
    def num_rows(self) -> int:
        return self._batch.num_rows

    def column(self, name: str) -> pa.Array:
        return self._batch.column(name)

    def array(self, spec: FeatureSpec) -> np.ndarray:
        """A zero-copy view `(rows, *item_shape)` of a numeric column."""
        view = self._views.get(spec.name)
        if view is None:
            column = self._batch.column(spec.name)
            flat = column.flatten() if spec.item_shape else column
            numbers = flat.to_numpy(zero_copy_only=True)
            view = numbers.view(spec.numpy_dtype).reshape(self.num_rows, *spec.item_shape)
            self._views[spec.name] = view
        return view
