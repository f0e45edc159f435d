"""Frames of video files at given times, straight into arrays.

One reader per process. It keeps files open (`video_decoder`), knows their frames (`video_index`), decodes each wanted
frame once and copies its planes into the caller's array. It leaves colours to `colour`, units of depth to `depth`, and
which time belongs to which row of a dataset to `sample`.

A frame is returned only if the decoder called it whole and it is shown at the time asked for; anything else is a
FrameError that names file and time. What no decoder can see, a flipped bit that decodes to a plausible picture, is out
of reach here. PyAV does all of it: torchcodec gives the same pixels (the tests' header has the comparison) and would
need CUDA libraries and a system FFmpeg.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from lerobot_ray.core.errors import FrameError
from lerobot_ray.data.swscale import RgbConverter, plane_pixels
from lerobot_ray.data.video_decoder import REMEDY, OpenVideo, PixelFormat, VideoInfo, frame_colours
from lerobot_ray.data.video_index import VideoIndex, index_from_packets

__all__ = ["PixelFormat", "VideoInfo", "VideoReader", "probe"]


def probe(path: Path | str) -> VideoInfo:
    """What the file at `path` says about itself."""
    video = OpenVideo(Path(path))
    try:
        return video.info
    finally:
        video.close()


class VideoReader:
    """One process's open video files. Not for several threads at once."""

    def __init__(
        self, *, max_open: int = 32, pixel_format: PixelFormat = "yuv420p", max_index_bytes: int = 64 << 20
    ) -> None:
        """`max_open` bounds open files, two handles each; indexes of closed ones are kept up to `max_index_bytes`."""
        self.max_open = max_open
        self.pixel_format = pixel_format
        self.max_index_bytes = max_index_bytes
        self._open: OrderedDict[Path, tuple[tuple[int, ...], OpenVideo]] = OrderedDict()
        self._indexes: OrderedDict[tuple[int, ...], VideoIndex] = OrderedDict()
        self._copies = {"yuv420p": self._copy_yuv420p, "rgb24": self._copy_rgb24, "gray12le": self._copy_gray12le}
        self._converters: dict[tuple[str | None, bool], RgbConverter] = {}
        self._packets_fed_before = 0

    @property
    def packets_fed(self) -> int:
        """Packets decoded so far: divided by the frames read, what seeking costs."""
        return self._packets_fed_before + sum(video.packets_fed for _, video in self._open.values())

    def read(
        self,
        path: Path | str,
        times_s: np.ndarray | Sequence[float],
        *,
        tolerance_s: float = 1e-4,
        out: np.ndarray | None = None,
        places: np.ndarray | None = None,
    ) -> np.ndarray:
        """Frames nearest to each time, in the order asked for; repeats are decoded once.

        yuv420p: (n, H*3//2, W) uint8, the planes Y, U, V of a frame one after the other. rgb24: (n, H, W, 3) uint8.
        gray12le: (n, H, W) uint16. Fills `out` if given, or its rows `places`, one for each time. A frame counts when
        it is shown within `tolerance_s` of its time; half a float32 step at that time comes on top, because datasets
        store times as float32.
        """
        path, times_s = Path(path), np.asarray(times_s, np.float64).reshape(-1)
        try:
            return self._read(path, times_s, tolerance_s, out, places)
        except FrameError:
            self._forget(path)
            if not self._tables_were_wrong(path):
                raise
        return self._read(path, times_s, tolerance_s, out, places)

    def info(self, path: Path | str) -> VideoInfo:
        """What the file says about itself: the `transport` to read it in, its colour matrix."""
        return self._video(Path(path), "").info

    def close(self) -> None:
        for path in list(self._open):
            self._forget(path)
        self._indexes.clear()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def layout(self, path: Path | str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of one frame as `read` gives it."""
        shape, dtype = _layout(self.info(path), self.pixel_format, Path(path))
        return shape, np.dtype(dtype)

    def _read(
        self,
        path: Path,
        times_s: np.ndarray,
        tolerance_s: float,
        out: np.ndarray | None,
        places: np.ndarray | None,
    ) -> np.ndarray:
        no_frame = f"no frame at {times_s[0]:.6f} s: " if len(times_s) else ""
        video = self._video(path, no_frame)
        if not video.info.pix_fmt:
            raise FrameError(f"{no_frame}nothing of this file can be decoded. {REMEDY}", file=str(path))
        shape, dtype = _layout(video.info, self.pixel_format, path)
        if out is None:
            out = np.empty((len(times_s), *shape), dtype)
        rows = len(times_s) if places is None else len(out)
        if out.shape != (rows, *shape) or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(f"{path} fills a contiguous {np.dtype(dtype)}{(rows, *shape)}, not {out.dtype}{out.shape}")
        places = np.arange(rows) if places is None else places
        if not len(times_s):
            return out
        wanted, first_slot, slots = np.unique(video.ranks(times_s, tolerance_s), return_index=True, return_inverse=True)
        order = video.cheapest_order(wanted)
        copy, info, ranks = self._copies[self.pixel_format], video.info, wanted[order].tolist()
        places_of_ranks, alike = places[first_slot[order]].tolist(), None
        try:
            for rank, following, place in zip(ranks, [*ranks[1:], None], places_of_ranks, strict=True):
                frame = video.frame(rank, following)
                looks = frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
                if looks != alike:
                    _check_like_file(frame, info, self.pixel_format, path)
                    alike = looks
                copy(frame, info, out[place])
        except av.FFmpegError as error:
            self._forget(path)
            raise FrameError(
                f"swscale cannot turn {video.info.pix_fmt} with the colours {frame_colours(frame)} into RGB "
                f"({error.strerror or error}). Encode the video again as yuv420p.",
                file=str(path),
            ) from error
        except BaseException:
            self._forget(path)  # whatever state the decoder is in, the next read starts from a fresh one
            raise
        for slot in np.flatnonzero(first_slot[slots] != np.arange(len(slots))):
            out[places[slot]] = out[places[first_slot[slots[slot]]]]
        return out

    def _tables_were_wrong(self, path: Path) -> bool:
        """Before giving up on a file, asks its packets whether its tables told the truth about it."""
        with contextlib.suppress(OSError, av.FFmpegError):
            identity = _identity(path)
            index = self._indexes.get(identity)
            if index is not None and index.is_from_tables:
                scanned = self._indexes[identity] = index_from_packets(path)
                return not (np.array_equal(scanned.pts, index.pts) and np.array_equal(scanned.key, index.key))
        return False

    def _video(self, path: Path, no_frame: str) -> OpenVideo:
        try:
            identity = _identity(path)
        except OSError as error:
            self._forget(path)
            raise FrameError(
                f"{no_frame}the video cannot be read ({error.strerror}). Fetch the dataset again, or correct its root.",
                file=str(path),
            ) from error
        known = self._open.get(path)
        if known and known[0] == identity:
            self._open.move_to_end(path)
            return known[1]
        self._forget(path)  # the file was replaced
        while len(self._open) >= self.max_open:
            self._forget(next(iter(self._open)))
        try:
            video = OpenVideo(path, self._indexes.get(identity))
        except FrameError as error:
            raise FrameError(no_frame + error.reason, file=error.file) from error
        self._open[path] = identity, video
        return video

    def _forget(self, path: Path) -> None:
        identity, video = self._open.pop(path, (None, None))
        if identity is None or video is None:
            return
        self._packets_fed_before += video.packets_fed
        if video.has_index:
            self._indexes[identity] = video.index
            self._indexes.move_to_end(identity)
        while (
            len(self._indexes) > 1 and sum(index.num_bytes for index in self._indexes.values()) > self.max_index_bytes
        ):
            self._indexes.popitem(last=False)
        video.close()

    def _copy_yuv420p(self, frame: Any, info: VideoInfo, out: np.ndarray) -> None:
        flat, at = out.reshape(-1), 0
        for plane in frame.planes:
            size = plane.width * plane.height
            if plane.line_size == plane.width:  # no padding: one piece of memory
                flat.data[at : at + size] = memoryview(plane)[:size]
            else:
                flat[at : at + size].reshape(plane.height, plane.width)[...] = plane_pixels(plane)
            at += size

    def _copy_rgb24(self, frame: Any, info: VideoInfo, out: np.ndarray) -> None:
        setting = frame_colours(frame)
        if setting not in self._converters:
            self._converters[setting] = RgbConverter(*setting)
        self._converters[setting].convert(frame, out)

    def _copy_gray12le(self, frame: Any, info: VideoInfo, out: np.ndarray) -> None:
        out.view(np.uint8)[...] = plane_pixels(frame.planes[0], 2)


def _identity(path: Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _layout(info: VideoInfo, pixel_format: PixelFormat, path: Path) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of one frame; FrameError when the file cannot be had in that pixel format."""
    if pixel_format == "rgb24":
        return (info.height, info.width, 3), np.uint8
    if info.transport != pixel_format:
        raise FrameError(
            f"a {info.pix_fmt} video of {info.width}x{info.height}, matrix {info.matrix or 'unknown'}, cannot be read "
            f"as {pixel_format}. Read it as {info.transport}.",
            file=str(path),
        )
    if pixel_format == "gray12le":
        return (info.height, info.width), np.uint16
    return (info.height * 3 // 2, info.width), np.uint8


def _check_like_file(frame: Any, info: VideoInfo, pixel_format: PixelFormat, path: Path) -> None:
    """Refuses a frame unlike the file's first: YUV travels without tags, and is converted with those of the file."""
    is_like = (frame.width, frame.height, frame.format.name) == (info.width, info.height, info.pix_fmt)
    if not is_like or (pixel_format == "yuv420p" and frame_colours(frame) != (info.matrix, info.full_range)):
        raise FrameError(
            f"the frame at {frame.time:.6f} s is {frame.width}x{frame.height} {frame.format.name} "
            f"{frame_colours(frame)}, the file begins as {info.width}x{info.height} {info.pix_fmt} "
            f"{(info.matrix, info.full_range)}. Encode the video again, in one piece.",
            file=str(path),
        )
