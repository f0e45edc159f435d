"""One open video file: its packets, its decoder, and where they stand.

Frames are named by rank (see `video_index`). The decoder goes on from where it stands unless a seek decodes less, and
is drained early when the next wanted frame lies behind a seek anyway, so that a codec with B-frames does not decode
frames nobody asked for only to hand out the last one. What comes out is checked, never guessed: a frame is the wanted
one when it carries its display time, and whole when nothing it was decoded from was damaged.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from lerobot_ray.core.errors import FrameError
from lerobot_ray.data.video_index import VideoIndex, build_index
from lerobot_ray.data.video_packets import PacketSource, open_packets

PixelFormat = Literal["yuv420p", "rgb24", "gray12le"]

MATRICES = {1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
"""FFmpeg's number of a colour matrix -> our name for it (see `colour`). 2 is "not said": swscale takes BT.601."""

SHORT_GOP = 4
"""Up to so many frames are decoded again rather than waiting for a delayed frame at the end of a read."""

REMEDY = "The file is probably truncated or corrupt: fetch it again, or drop the episode."


def frame_colours(frame: Any) -> tuple[str | None, bool]:
    """A decoded frame's own (matrix, full_range)."""
    return MATRICES.get(int(frame.colorspace)), _is_full_range(frame.color_range, frame.format.name)


def _is_full_range(color_range: int, pix_fmt: str) -> bool:
    return int(color_range) == 2 or pix_fmt.startswith("yuvj")


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself."""

    width: int
    height: int
    codec: str
    pix_fmt: str
    fps: float
    num_frames: int
    duration_s: float
    start_s: float
    matrix: str | None
    """Name of the YUV to RGB matrix for `colour.yuv420_to_rgb`; None for one it does not have."""
    full_range: bool

    @property
    def transport(self) -> PixelFormat:
        """The pixel format to read this file in: the smallest one that loses nothing.

        `yuv420p` needs 8-bit 4:2:0 of even width and height and a known matrix; 12-bit grey is a depth video; anything
        else is converted to `rgb24` while reading, by swscale as LeRobot does.
        """
        if self.pix_fmt == "gray12le":
            return "gray12le"
        if self.pix_fmt in ("yuv420p", "yuvj420p") and self.matrix and not (self.width % 2 or self.height % 2):
            return "yuv420p"
        return "rgb24"


class OpenVideo:
    """A video file with its decoder. After an error it must be closed and opened again."""

    def __init__(self, path: Path, index: VideoIndex | None = None) -> None:
        self.path = path
        self.packets_fed = 0
        try:
            self._container = av.open(str(path), metadata_errors="replace")
        except av.FFmpegError as error:
            raise FrameError(
                f"this is not a whole video file ({error.strerror or error}). Fetch it again, or encode it again.",
                file=str(path),
            ) from error
        self._stream: Any = next(iter(self._container.streams.video), None)
        if self._stream is None or self._stream.codec_context is None:
            what = "no video stream" if self._stream is None else "a video stream that this build of PyAV cannot decode"
            self._container.close()
            raise FrameError(f"the file has {what}. Encode it again, as AV1 or H.264.", file=str(path))
        # One thread: a process per core decodes more than threads inside a decoder, and dav1d with one thread hands
        # out every frame at once instead of holding some back.
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.thread_type = "NONE"
        self._known_index = index
        self._info: VideoInfo | None = None
        self._packets: PacketSource | None = None
        self._forget_position()

    @property
    def index(self) -> VideoIndex:
        if self._known_index is None:
            try:
                self._known_index = build_index(self.path, self._container, self._stream)
            except av.FFmpegError as error:
                raise FrameError(f"reading fails ({error.strerror or error}). {REMEDY}", file=str(self.path)) from error
            self._forget_position()
        return self._known_index

    @property
    def has_index(self) -> bool:
        return self._known_index is not None

    @property
    def info(self) -> VideoInfo:
        if self._info is None:
            stream, context = self._stream, self._stream.codec_context
            seconds = float(stream.time_base or 0)
            self._info = VideoInfo(
                width=context.width,
                height=context.height,
                codec=context.codec.canonical_name,
                pix_fmt=context.pix_fmt or "",
                fps=float(stream.average_rate or stream.guessed_rate or 0),
                num_frames=stream.frames or len(self.index.pts),
                duration_s=(stream.duration or 0) * seconds,
                start_s=(stream.start_time or 0) * seconds,
                matrix=MATRICES.get(int(context.colorspace)),
                full_range=_is_full_range(context.color_range, context.pix_fmt or ""),
            )
        return self._info

    def close(self) -> None:
        if self._packets is not None:
            self._packets.close()
            self._packets = None
        self._ready.clear()
        self._container.close()

    def ranks(self, times_s: np.ndarray, tolerance_s: float) -> np.ndarray:
        """The frames shown at `times_s`; FrameError if one of the times has none."""
        index = self.index
        if not len(index.pts):
            raise FrameError(f"no frame at {times_s[0]:.6f} s: the file holds none. {REMEDY}", file=str(self.path))
        ranks = index.nearest(times_s)
        distance_s = np.abs(index.times_s[ranks] - times_s)
        # Wanted times come from a float32 column. After half an hour a float32 step exceeds the usual tolerance.
        slack_s = np.spacing(np.abs(times_s).astype(np.float32)).astype(np.float64) / 2
        worst = int(np.argmax(np.where(np.isfinite(times_s), distance_s - slack_s, np.inf)))
        if not distance_s[worst] <= tolerance_s + slack_s[worst]:
            wanted_s, nearest_s = times_s[worst], index.times_s[ranks[worst]]
            is_past_end = bool(wanted_s > index.times_s[-1])
            advice = "Encode the video again at the dataset's fps, or raise tolerance_s."
            raise FrameError(
                f"no frame at {wanted_s:.6f} s: the nearest is at {nearest_s:.6f} s{', the last one' * is_past_end}"
                f"{index.note and ', as '}{index.note} (tolerance_s {tolerance_s:g}). "
                f"{REMEDY if is_past_end else advice}",
                file=str(self.path),
            )
        return ranks

    def cheapest_order(self, ranks: np.ndarray) -> np.ndarray:
        """Positions of `ranks` (ascending) in the order that decodes least from where the decoder stands."""
        index = self.index
        if self._shown is None:
            return np.arange(len(ranks))
        first = int(np.searchsorted(index.pts[ranks], self._shown, side="right"))
        if first < len(ranks) and self._comes_up(int(index.pts[ranks[first]]), int(index.key[ranks[first]])):
            return np.roll(np.arange(len(ranks)), -first)
        return np.arange(len(ranks))

    def frame(self, rank: int, following: int | None) -> Any:
        """The decoded frame of `rank`; `following` is the rank wanted after it, if known. Valid until the next call."""
        index = self.index
        target, place, key = index.pts.item(rank), index.place.item(rank), index.key.item(rank)
        if key < 0:
            raise self._error(rank, "there is no key frame to decode it from")
        try:
            if not self._comes_up(target, key):
                self._seek(key)
            while True:
                while self._ready:
                    frame = self._ready.popleft()
                    self._take_note(frame)
                    if frame.pts == target:
                        return self._whole(frame, rank, key, place)
                    if frame.pts is not None and frame.pts > target:
                        raise self._error(rank, "the decoder gave no picture for it")
                if self._ended:
                    raise self._error(rank, "the file ends before it, or the decoder gave no picture for it")
                if self._fed is not None and self._fed > place and self._may_drain(rank, following, key):
                    self._drain()
                else:
                    self._feed()
        except av.FFmpegError as error:
            raise self._error(rank, f"reading fails ({error.strerror or error})") from error

    def _forget_position(self) -> None:
        self._ready: deque[Any] = deque()
        """Decoded and not looked at yet, in display order."""
        self._fed: int | None = None
        """Place of the next packet; None before the first seek."""
        self._shown: int | None = None
        """Display time of the last frame taken from `_ready`."""
        self._ended = True
        self._damage: list[int] = []
        """Places since the last seek where something was wrong."""

    def _comes_up(self, target: int, key: int) -> bool:
        """Whether going on from here reaches `target`, without decoding more than from its key frame."""
        if self._shown is not None and self._shown >= target:
            return False
        if self._ready and any(frame.pts == target for frame in self._ready):
            return True
        return not self._ended and self._fed is not None and self._fed >= key

    def _may_drain(self, rank: int, following: int | None, key: int) -> bool:
        assert self._fed is not None
        if following is None:
            return self._fed - key <= SHORT_GOP
        return following < rank or int(self.index.key[following]) >= self._fed

    def _seek(self, key: int) -> None:
        self._forget_position()
        if self._packets is None:
            self._packets = open_packets(str(self.path), self._container, self._stream, self.index)
        self._fed = self._packets.seek(key)
        self._ended = self._fed is None

    def _feed(self) -> None:
        assert self._packets is not None
        assert self._fed is not None
        packet = self._packets.read()
        if packet is None:
            self._drain()
            return
        if packet.is_corrupt:
            self._damage.append(self._fed)
        try:
            self._ready.extend(self._stream.codec_context.decode(packet))
        except av.FFmpegError:
            self._damage.append(self._fed)
        self._fed += 1
        self.packets_fed += 1

    def _drain(self) -> None:
        self._ended = True
        with contextlib.suppress(av.EOFError):
            self._ready.extend(self._stream.codec_context.decode(None))

    def _take_note(self, frame: Any) -> None:
        if frame.pts is None:
            return
        self._shown = frame.pts
        if frame.is_corrupt:
            index = self.index
            rank = int(np.searchsorted(index.pts, frame.pts))
            self._damage.append(int(index.place[min(rank, len(index.pts) - 1)]))

    def _whole(self, frame: Any, rank: int, key: int, place: int) -> Any:
        if any(key <= damaged <= place for damaged in self._damage):
            raise self._error(rank, "it is damaged")
        return frame

    def _error(self, rank: int, reason: str) -> FrameError:
        at_s = float(self.index.times_s[rank])
        return FrameError(f"the frame at {at_s:.6f} s cannot be decoded: {reason}. {REMEDY}", file=str(self.path))
