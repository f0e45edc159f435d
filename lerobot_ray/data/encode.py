"""Video files: frames to mp4 while they arrive, and several mp4s to one without decoding.

Every episode is encoded on its own, so that it starts with a key frame, and later appended to a larger file by copying
packets. No B-frames: packets come in display order, and a reader needs no look-ahead.
"""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np

from lerobot_ray.core.errors import ConfigError, DatasetError, StorageError, nearest
from lerobot_ray.data.disk import publish, unfinished_name


@dataclass(frozen=True)
class VideoCodec:
    """How frames become packets. `encoder` is FFmpeg's name; the rest are options, under the names LeRobot records."""

    encoder: str
    pix_fmt: str = "yuv420p"
    g: int = 2
    """Distance of key frames. Small is quick to seek in, large makes small files."""
    crf: int = 30
    """Quality; lower is better."""
    preset: str | int | None = None
    extra_options: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, str]:
        """FFmpeg options of the encoder."""
        quality = next((name for ending, name in QUALITY.items() if self.encoder.endswith(ending)), "crf")
        options = {"g": str(self.g), quality: str(self.crf), **QUIET.get(self.encoder, {})}
        if self.preset is not None:
            options["preset"] = str(self.preset)
        for key, value in self.extra_options.items():
            options[key] = f"{options[key]}:{value}" if key in options and key.endswith("-params") else value
        return options

    def describe(self) -> dict[str, Any]:
        """The encoder's part of a video feature's `info` in info.json."""
        return {
            "video.g": self.g,
            "video.crf": self.crf,
            "video.preset": self.preset,
            "video.fast_decode": 0,
            "video.video_backend": "pyav",
            "video.extra_options": dict(self.extra_options),
        }


QUALITY = {"_nvenc": "cq", "_qsv": "global_quality", "_vaapi": "qp"}
"""What hardware encoders call their constant quality. The rest take `crf`, or ignore it."""

QUIET = {"libx265": {"x265-params": "log-level=none"}}
"""x265 writes to stderr by itself, past FFmpeg's log level."""

CODECS: Mapping[str, VideoCodec] = MappingProxyType(
    {
        "av1": VideoCodec("libsvtav1", preset=10),
        "h264": VideoCodec("libx264"),
        "hevc": VideoCodec("libx265"),
    }
)
"""What `codec=` may name. av1 is what LeRobot records by default; h264 encodes and decodes faster and is larger.

LeRobot's own preset for av1 is 12. SVT-AV1 4 then leaves blocks of a key frame standing in the frame after it (a small
object that moves is there one frame too long); 10 does not, takes the same time and makes smaller files. A test holds
this: tests/data/test_encode.py.
"""

ALIASES = {"libsvtav1": "av1", "auto": "av1", "libx264": "h264", "libx265": "hevc", "h265": "hevc"}

DEPTH_CODEC = VideoCodec("libx265", pix_fmt="gray12le", extra_options={"x265-params": "lossless=1"})
"""Depth is stored without loss, 12 bits in one plane."""


def video_codec(name: str | VideoCodec) -> VideoCodec:
    """The codec called `name`, checked to be in this build of PyAV."""
    if isinstance(name, VideoCodec):
        codec = name
    elif (known := ALIASES.get(name, name)) in CODECS:
        codec = CODECS[known]
    elif name.endswith(("_nvenc", "_videotoolbox", "_qsv", "_vaapi")) or name == "libaom-av1":
        codec = VideoCodec(name)
    else:
        near = nearest(name, [*CODECS, *ALIASES])
        raise ConfigError(
            f"unknown video codec {name!r}{f', did you mean {near!r}?' if near else '.'} Known: {', '.join(CODECS)}."
        )
    try:
        av.codec.Codec(codec.encoder, "w")
    except Exception as error:  # PyAV's UnknownCodecError lives in different modules over its versions
        raise ConfigError(
            f"this PyAV ({av.__version__}) has no encoder {codec.encoder!r}. Choose one of {', '.join(CODECS)}, "
            f"or install the wheel from PyPI, which carries them."
        ) from error
    return codec


def try_encoder(codec: VideoCodec, *, fps: int, height: int, width: int) -> None:
    """Encodes two black frames: what an encoder refuses, it refuses here and not at the end of the first episode."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as container:
            _encode(container, iter([np.zeros((height, width, 3), np.uint8)] * 2), codec, fps, height, width)
    except av.FFmpegError as error:
        raise ConfigError(
            f"{codec.encoder} cannot encode frames of {width}x{height} here ({error}). "
            f"Choose one of {', '.join(CODECS)}, or another size."
        ) from error


def _encode(container: Any, frames: Iterator[np.ndarray], codec: VideoCodec, fps: int, height: int, width: int) -> None:
    """Encodes frames into an open mp4, one per tick of 1/fps."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings otherwise, past FFmpeg's log level
    stream = container.add_stream(codec.encoder, rate=fps, options=codec.options())
    stream.width, stream.height, stream.pix_fmt = width, height, codec.pix_fmt
    stream.codec_context.max_b_frames = 0
    pixels = "gray12le" if codec.pix_fmt == "gray12le" else "rgb24"
    for number, array in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(array, format=pixels)
        frame.pts, frame.time_base = number, Fraction(1, fps)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


class EpisodeEncoder:
    """Encodes one episode of one camera in a thread of its own, while frames arrive.

    `add` returns at once unless `queue_frames` frames are waiting. An error of the encoder is raised by the next `add`
    or by `close`. Frames: uint8 (H, W, 3), or uint16 (H, W) for 12-bit depth codes; the caller leaves them alone then.
    """

    def __init__(
        self, path: Path, *, codec: VideoCodec, fps: int, height: int, width: int, queue_frames: int = 32
    ) -> None:
        self.path, self.num_frames = path, 0
        self._codec, self._fps, self._height, self._width = codec, fps, height, width
        self._frames: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=queue_frames)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"encode {path.name}", daemon=True)
        self._thread.start()

    def add(self, frame: np.ndarray) -> None:
        """Hands over the next frame."""
        self._raise_error()
        self._frames.put(frame)
        self.num_frames += 1

    def close(self) -> None:
        """Waits until the file is whole."""
        self._stop()
        self._raise_error()

    def abandon(self) -> None:
        """Stops encoding and removes the file."""
        self._stop()
        self.path.unlink(missing_ok=True)

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise StorageError(
                f"cannot encode {self.path.name} with {self._codec.encoder} at {self._width}x{self._height}: "
                f"{self._error}"
            ) from self._error

    def _work(self) -> None:
        try:
            with av.open(str(self.path), "w", format="mp4") as container:
                _encode(container, self._arriving(), self._codec, self._fps, self._height, self._width)
        except BaseException as error:  # handed to the recording thread by add() or close()
            self._error = error
            for _ in self._arriving():  # a recorder waiting in add() must not wait for ever
                pass

    def _arriving(self) -> Iterator[np.ndarray]:
        while (array := self._frames.get()) is not None:
            yield array


def concatenate(parts: Sequence[Path], target: Path, *, durable: bool = True) -> None:
    """Writes the packets of `parts` one after another into `target`, which appears when it is whole.

    All parts must come from the same encoder settings and frame rate. Cost: reading and writing, no decoding.
    """
    with av.open(str(unfinished_name(target)), "w", format="mp4", options={"movflags": "faststart"}) as output:
        stream, offset, header = None, 0, b""
        for part in parts:
            with av.open(str(part)) as source:
                template = source.streams.video[0]
                if stream is None:
                    stream, header = output.add_stream_from_template(template, opaque=True), decoder_header(template)
                elif decoder_header(template) != header:
                    raise DatasetError(
                        f"{part.name} was encoded with other settings than the files before it, so that one mp4 "
                        f"cannot hold both. Write it to a new video file."
                    )
                end = 0
                for packet in source.demux(template):
                    if packet.pts is None or packet.dts is None:  # the flush packet at the end
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    output.mux(packet)
                offset += end
    publish(target, durable=durable)


def decoder_header(stream: Any) -> bytes:
    """What a decoder must know before the first packet; streams that differ in it cannot share an mp4 track."""
    context = stream.codec_context
    size = f"{context.name} {context.width}x{context.height} {stream.time_base} ".encode()
    return size + bytes(context.extradata or b"")


DECODERS = {"libdav1d": "av1", "libaom-av1": "av1"}
"""Decoders whose name is not that of the codec they read."""


def probe(path: Path) -> dict[str, Any]:
    """The file's part of a video feature's `info` in info.json."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        channels = 1 if (context.pix_fmt or "").startswith("gray") else 3
        return {
            "video.height": context.height,
            "video.width": context.width,
            "video.codec": DECODERS.get(context.name, context.name),
            "video.pix_fmt": context.pix_fmt,
            "video.fps": int(stream.average_rate or 0),
            "video.channels": channels,
            "has_audio": bool(container.streams.audio),
        }
