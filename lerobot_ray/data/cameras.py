"""Camera frames by global row number, whichever way the dataset stores them: mp4 files, PNG or TIFF images, depth.

Each (camera, row) is decoded once per call however often it is asked for, file by file and forwards in time, and not
at all if the node's frame cache has it. Where a row's frame is in which file comes from the episode table; opening
files and decoding are `video`'s work.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from lerobot_ray.core.errors import ConfigError, DatasetError, FrameError
from lerobot_ray.core.types import TIMESTAMP
from lerobot_ray.data.buffers import Buffers
from lerobot_ray.data.cache import FrameCache
from lerobot_ray.data.depth import MILLIMETRES, depth_coding
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.frames import FrameTable
from lerobot_ray.data.images import decode_image
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.video import VideoReader
from lerobot_ray.data.video_decoder import MATRICES

Transport = Literal["auto", "yuv420", "rgb"]

COLOURS: tuple[tuple[str, bool], ...] = tuple(
    (matrix, full_range) for matrix in sorted(set(MATRICES.values())) for full_range in (False, True)
)
"""(matrix, full range) by number: how blocks say which colours their packed frames are in."""

MAX_MILLIMETRES = 65535.0


@dataclass(frozen=True)
class CameraFrames:
    """Frames of one camera. Packed ones say how to turn them into colours."""

    frames: np.ndarray
    """(n, H*3//2, W) uint8 if packed; else (n, C, H, W), uint8 for colours and float32 for depth."""
    colours: np.ndarray | None = None
    """(n,) uint8, numbers in COLOURS, of packed frames; None for all others."""


class _CannotPackError(Exception):
    """A video file is not 8-bit 4:2:0: its frames would lose something as packed YUV."""


class CameraReader:
    """One process's way to camera frames. Owns the open video files; not for several threads at once."""

    def __init__(
        self,
        metadata: DatasetMetadata,
        frames: FrameTable,
        *,
        transport: Transport = "auto",
        tolerance_s: float = 1e-4,
        depth_output_unit: str = "mm",
        cache: FrameCache | None = None,
        max_open: int = 32,
    ) -> None:
        if depth_output_unit not in ("mm", "m"):
            raise ConfigError(f"depth_output_unit is {depth_output_unit!r}; expected 'mm' or 'm'.")
        self.metadata = metadata
        self.frames = frames
        self.transport = transport
        self.tolerance_s = tolerance_s
        self.depth_output_unit = depth_output_unit
        self.cache = cache
        self._packed = VideoReader(max_open=max_open, pixel_format="yuv420p")
        self._rgb = VideoReader(max_open=max_open, pixel_format="rgb24")
        self._depth = VideoReader(max_open=max_open, pixel_format="gray12le")
        self._mixed: set[str] = set()
        """Cameras with a file that cannot be packed: all their frames travel as RGB, so that they stay alike."""
        self._buffers = Buffers()

    def read(self, camera: str, rows: np.ndarray) -> CameraFrames:
        """The frames of `camera` at global `rows`, any order, repeats allowed and decoded once."""
        spec, rows = self.metadata.features[camera], np.asarray(rows, dtype=np.int64)
        channels, height, width = spec.channels_first_shape
        if spec.is_image:
            form, dtype = ("depth in " + self.depth_output_unit, np.float32) if spec.is_depth else ("image", np.uint8)
            return self._through_cache(form, spec, rows, (channels, height, width), np.dtype(dtype), self._read_images)
        if spec.is_depth:
            read = partial(self._read_videos, self._depth)
            codes = self._through_cache("gray12le", spec, rows, (height, width), np.dtype(np.uint16), read)
            return CameraFrames(np.take(self._distances(spec), codes.frames)[:, None])
        if self.transport != "rgb" and camera not in self._mixed:
            read, shape = partial(self._read_videos, self._packed), (height * 3 // 2, width)
            try:
                return self._through_cache("yuv420p", spec, rows, shape, np.dtype(np.uint8), read)
            except _CannotPackError:
                self._mixed.add(camera)
        return self._through_cache("rgb", spec, rows, (3, height, width), np.dtype(np.uint8), self._read_rgb)

    def prefetch(self, camera: str, rows: np.ndarray) -> None:
        """The files of these rows are wanted soon. Returns at once."""
        if self.metadata.features[camera].is_video:
            paths = [path for path, _ in self._by_file(camera, np.asarray(rows, dtype=np.int64))]
            self.metadata.storage.prefetch(paths)

    def lent(self, memory: mmap.mmap | None) -> AbstractContextManager[None]:
        """Meanwhile frames are decoded into `memory` where that saves a copy (see `Buffers.lent`)."""
        return self._buffers.lent(memory)

    def close(self) -> None:
        for reader in (self._packed, self._rgb, self._depth):
            reader.close()
        if self.cache is not None:
            self.cache.close()

    def _through_cache(
        self,
        form: str,
        spec: FeatureSpec,
        rows: np.ndarray,
        shape: tuple[int, ...],
        dtype: np.dtype,
        decode: Callable[[FeatureSpec, np.ndarray], CameraFrames],
    ) -> CameraFrames:
        """What `decode` gives, but only for frames the cache does not have; those are offered to it."""
        if self.cache is None:
            return decode(spec, rows)
        name = f"{spec.name} {form}"  # a camera may be kept in two forms
        frames, tags = self._buffers.empty((len(rows), *shape), dtype), np.zeros(len(rows), np.uint8)
        hits = self.cache.get(name, rows, frames, tags)
        missing = np.flatnonzero(~hits)
        if len(missing):
            decoded = decode(spec, rows[missing])
            if decoded.frames.shape[1:] == shape:  # unlike info.json's, it is not for the cache
                self.cache.put(name, rows[missing], decoded.frames, decoded.colours)
            if len(missing) == len(rows):
                return decoded
            frames[missing] = decoded.frames
            if decoded.colours is not None:
                tags[missing] = decoded.colours
        return CameraFrames(frames, tags if form == "yuv420p" else None)

    def _read_rgb(self, spec: FeatureSpec, rows: np.ndarray) -> CameraFrames:
        frames = self._read_videos(self._rgb, spec, rows).frames
        return CameraFrames(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))

    def _read_videos(self, reader: VideoReader, spec: FeatureSpec, rows: np.ndarray) -> CameraFrames:
        """Frames in the reader's pixel format."""
        camera = spec.name
        times_s = self._times_s(camera, rows)
        files = list(self._by_file(camera, rows))
        colours = np.empty(len(rows), dtype=np.uint8) if reader is self._packed else None
        frames: np.ndarray | None = None
        for path, places in files:
            local = self.metadata.storage.local(path)
            try:
                info = reader.info(local)
                if colours is not None:
                    if info.transport != "yuv420p":
                        raise _CannotPackError
                    colours[places] = COLOURS.index((str(info.matrix), info.full_range))
                shape, dtype = reader.layout(local)
                if frames is None:
                    frames = self._buffers.empty((len(rows), *shape), dtype)
                if frames.shape[1:] != shape:
                    raise DatasetError(
                        f"{self.metadata.repo_id}: frames of {camera} in {path} have the shape {shape}, in other files "
                        f"{frames.shape[1:]}. Encode all videos of a camera in one size."
                    )
                reader.read(local, times_s[places], tolerance_s=self.tolerance_s, out=frames, places=places)
            except FrameError as error:
                raise self._explained(error, reader, camera, rows[places], times_s[places], local) from error
        assert frames is not None, "no rows were asked for"
        return CameraFrames(frames, colours)

    def _times_s(self, camera: str, rows: np.ndarray) -> np.ndarray:
        """When each row's frame is shown in its video file: the float32 timestamp, as LeRobot reads it."""
        episodes = self.metadata.episodes
        from_s = episodes.video[camera].from_s[episodes.episode_of_rows(rows)]
        return from_s + self.frames.column(TIMESTAMP, rows).astype(np.float64)

    def _by_file(self, camera: str, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(relative path, places in `rows`) of each video file."""
        episodes = self.metadata.episodes
        places = episodes.video[camera]
        of_row = episodes.episode_of_rows(rows)
        chunk, file = places.chunk[of_row], places.file[of_row]
        order = np.lexsort((file, chunk))  # stable: rows stay ascending within a file
        begins = np.flatnonzero((np.diff(chunk[order]) != 0) | (np.diff(file[order]) != 0)) + 1
        for group in np.split(order, begins) if len(order) else ():
            yield self.metadata.video_path(camera, chunk[group[0]], file[group[0]]), group

    def _distances(self, spec: FeatureSpec) -> np.ndarray:
        """Distance in the output unit of each depth code, float32. Millimetres are whole, as in LeRobot."""
        metres = depth_coding(spec.info).metres_by_code()
        if self.depth_output_unit == "m":
            return metres
        return np.clip(np.rint(metres * np.float32(MILLIMETRES)), 0.0, MAX_MILLIMETRES)

    def _in_output_unit(self, distances: np.ndarray, unit: str) -> np.ndarray:
        if unit == self.depth_output_unit:
            return distances.astype(np.float32)
        scale = np.float32(MILLIMETRES)
        return distances.astype(np.float32) * scale if unit == "m" else distances.astype(np.float32) / scale

    def _read_images(self, spec: FeatureSpec, rows: np.ndarray) -> CameraFrames:
        channels, height, width = spec.channels_first_shape
        frames = np.empty((len(rows), channels, height, width), dtype=np.float32 if spec.is_depth else np.uint8)
        encoded = self.frames.objects(spec.name, rows)
        first = {row: place for place, row in reversed(list(enumerate(rows.tolist())))}
        for place, row in enumerate(rows.tolist()):
            frames[place] = frames[first[row]] if first[row] < place else self._image(spec, row, encoded[place])
        return CameraFrames(frames)

    def _image(self, spec: FeatureSpec, row: int, encoded: bytes) -> np.ndarray:
        """One encoded image as (C, H, W)."""
        channels, height, width = spec.channels_first_shape
        try:
            pixels = decode_image(encoded, depth=spec.is_depth)
            if pixels.shape != (height, width, channels):
                raise FrameError(f"the image is {pixels.shape}, info.json says {(height, width, channels)}.")
        except FrameError as error:
            episode = int(self.metadata.episodes.episode_of_rows(np.array([row]))[0])
            reason = f"{self.metadata.repo_id}: row {row}: {error.reason}"
            raise FrameError(reason, file=error.file, camera=spec.name, episode=episode) from error
        if spec.is_depth:
            recorded = "m" if pixels.dtype.kind == "f" else "mm"
            pixels = self._in_output_unit(pixels, str(spec.info.get("depth_unit", recorded)))
        return pixels.transpose(2, 0, 1)

    def _explained(
        self,
        error: FrameError,
        reader: VideoReader,
        camera: str,
        rows: np.ndarray,
        times_s: np.ndarray,
        local: Path,
    ) -> FrameError:
        """The error with everything needed to find, repair or drop the episode it belongs to."""
        of_row = self.metadata.episodes.episode_of_rows(rows)
        episodes = np.unique(of_row)
        culprit = int(episodes[0])
        for episode in episodes if len(episodes) > 1 else ():
            try:
                reader.read(local, times_s[of_row == episode], tolerance_s=self.tolerance_s)
            except FrameError as again:
                culprit, error = int(episode), again
                break
        reason = f"{self.metadata.repo_id}: {error.reason}"
        return FrameError(reason, file=error.file or str(local), camera=camera, episode=culprit)
