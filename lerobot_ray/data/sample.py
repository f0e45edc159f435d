"""Sample ids to arrays: the windows of numbers and camera frames a policy trains on, gathered for many samples at once.

This is what decode actors run, so it knows numpy and video files but not torch, and loops over features and files,
never over samples. The result, a block, is a dict of arrays whose first axis is the sample; `batch` makes torch
batches of it.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.core.errors import DatasetError, FrameError, nearest
from lerobot_ray.core.types import PAD_SUFFIX, TASK_INDEX
from lerobot_ray.data.camera_cache import CacheSettings, open_cache
from lerobot_ray.data.cameras import CameraReader, Transport
from lerobot_ray.data.episodes import Selection
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.frames import FrameTable
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.sample_weights import SampleWeights
from lerobot_ray.data.windows import window_rows

logger = logging.getLogger(__name__)

READ_AHEAD_FRAMES = 64
"""Frames decoded at a time when reading ahead; bounds the memory it takes."""

COLOURS_SUFFIX = ".colours"
"""Beside each packed camera of a block: uint8 numbers in `cameras.COLOURS`, one per frame."""


@dataclass(frozen=True)
class SampleSpec:
    """What a sample holds and how it is read. Picklable: decode actors get a copy."""

    metadata: DatasetMetadata
    selection: Selection
    offsets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Feature -> frame offsets of its window; features without an entry have no time axis."""
    features: tuple[str, ...] | None = None
    """Which features to read (None: all). Cameras left out are not decoded."""
    transport: Transport = "auto"
    tolerance_s: float = 1e-4
    depth_output_unit: str = "mm"
    cache: CacheSettings | None = None
    """Where each node keeps decoded frames; None: nowhere."""
    weights: SampleWeights | None = None
    """How much samples count in the loss; None: all alike."""
    frames_dir: Path | None = None
    """This machine's folder of memory-mapped data files; None: the default one."""

    def __post_init__(self) -> None:
        known = self.metadata.features
        for name in [*self.offsets, *(self.features or ())]:
            if name not in known:
                near = nearest(name, known)
                hint = f" Did you mean {near}?" if near else f" It has: {', '.join(known)}."
                raise DatasetError(f"{self.metadata.repo_id} has no feature {name}.{hint}")

    @cached_property
    def specs(self) -> list[FeatureSpec]:
        """The features a sample holds, in the dataset's order."""
        chosen = None if self.features is None else {*self.features, TASK_INDEX}
        return [spec for name, spec in self.metadata.features.items() if chosen is None or name in chosen]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample in a block, about: what block and buffer sizes are chosen by."""
        return sum(len(self.offsets.get(spec.name, (0,))) * self._row_bytes(spec) for spec in self.specs)

    def _row_bytes(self, spec: FeatureSpec) -> int:
        if spec.is_numeric:
            return spec.item_dtype.itemsize * math.prod(spec.item_shape)
        if not spec.is_camera:
            return 0
        pixels = math.prod(spec.channels_first_shape[1:])
        if spec.is_depth:
            return 4 * pixels
        return pixels * 3 if spec.is_image or self.transport == "rgb" else pixels * 3 // 2


class BlockReader:
    """Reads blocks in one process. Owns the open video files and mapped tables; not for several threads at once."""

    def __init__(self, spec: SampleSpec) -> None:
        self.spec = spec
        self.frames = FrameTable(spec.metadata, cache_dir=spec.frames_dir)
        self.cache = None if spec.cache is None else open_cache(spec.cache, spec.metadata)
        self.cameras = CameraReader(
            spec.metadata,
            self.frames,
            transport=spec.transport,
            tolerance_s=spec.tolerance_s,
            depth_output_unit=spec.depth_output_unit,
            cache=self.cache,
        )

    def read(self, sample_ids: np.ndarray) -> dict[str, np.ndarray | list[Any]]:
        """The block of these samples (n,): arrays with leading axis n, lists of length n for strings and languages.

        A feature with a window of T frames has shape (n, T, …) and comes with `<name>_is_pad` (n, T). Cameras are
        packed YUV420 uint8 (n[, T], H*3//2, W), or RGB uint8 and depth float32 (n[, T], C, H, W).
        """
        windows = self._windows(sample_ids)
        block: dict[str, np.ndarray | list[Any]] = {}
        for spec in self.spec.specs:
            rows, is_pad = windows(spec.name)
            if spec.is_camera:
                self._add_camera(block, spec.name, rows)
            elif spec.is_numeric:
                block[spec.name] = self.frames.column(spec.name, rows).astype(spec.item_dtype, copy=False)
            else:
                block[spec.name] = self._objects(spec.name, rows)
            if is_pad is not None:
                block[spec.name + PAD_SUFFIX] = is_pad
        return block

    def lent(self, memory: mmap.mmap | None) -> AbstractContextManager[None]:
        """Meanwhile large arrays of a block lie in `memory`, as far as there is room (see `Buffers.lent`)."""
        return self.cameras.lent(memory)

    def read_ahead(self, sample_ids: np.ndarray) -> None:
        """Decode the camera frames of these samples into the frame cache, in file order. Nothing without a cache.

        Stops when the cache takes no more. A frame that cannot be decoded is left for the read that needs it to report.
        """
        if self.cache is None or not len(sample_ids):
            return
        windows = self._windows(sample_ids)
        for spec in self.spec.specs:
            if spec.is_camera and not self._keep(spec.name, np.unique(windows(spec.name)[0])):
                return

    def _keep(self, camera: str, rows: np.ndarray) -> bool:
        """Whether the cache had room for all frames of `camera` at `rows`."""
        assert self.cache is not None
        refused = self.cache.stats().refused
        for start in range(0, len(rows), READ_AHEAD_FRAMES):
            try:
                self.cameras.read(camera, rows[start : start + READ_AHEAD_FRAMES])
            except FrameError as error:
                logger.debug("read ahead: %s", error)
            if self.cache.stats().refused > refused:
                return False
        return True

    def prefetch(self, sample_ids: np.ndarray) -> None:
        """Ask the storage for the files of these samples. Returns at once."""
        windows = self._windows(sample_ids)
        for spec in self.spec.specs:
            if spec.is_video:
                self.cameras.prefetch(spec.name, windows(spec.name)[0].reshape(-1))
        self.frames.prefetch(windows("")[0])

    def close(self) -> None:
        self.cameras.close()

    def _windows(self, sample_ids: np.ndarray) -> _Windows:
        selection = self.spec.selection
        position, anchors = selection.locate(np.asarray(sample_ids, dtype=np.int64))
        return _Windows(self.spec.offsets, anchors, selection.first_row[position], selection.end_row[position])

    def _objects(self, name: str, rows: np.ndarray) -> list[Any]:
        flat = self.frames.objects(name, rows.reshape(-1))
        if rows.ndim == 1:
            return flat
        window = rows.shape[1]
        return [flat[start : start + window] for start in range(0, len(flat), window)]

    def _add_camera(self, block: dict[str, Any], camera: str, rows: np.ndarray) -> None:
        read = self.cameras.read(camera, rows.reshape(-1))
        block[camera] = read.frames.reshape(*rows.shape, *read.frames.shape[1:])
        if read.colours is not None:
            block[camera + COLOURS_SUFFIX] = read.colours.reshape(rows.shape)


class _Windows:
    """Rows and padding per feature; features with the same offsets share the arithmetic."""

    def __init__(
        self, offsets: Mapping[str, Sequence[int]], anchors: np.ndarray, first: np.ndarray, end: np.ndarray
    ) -> None:
        self._offsets = offsets
        self._anchors, self._first, self._end = anchors, first, end
        self._known: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        offsets = self._offsets.get(name)
        if offsets is None:
            return self._anchors, None
        key = tuple(int(offset) for offset in offsets)
        if key not in self._known:
            self._known[key] = window_rows(self._anchors, self._first, self._end, key)
        return self._known[key]
