"""Which frames a video file holds, when each is shown, and where decoding has to start for each of them.

An index is what lets a reader refuse a time that has no frame before decoding anything, visit wanted frames in the
order that decodes least, and know what a seek would cost. It comes from the mp4's own sample tables (a few MB at
most, read without touching the pictures), checked against the first packet and the last key frame that the demuxer
gives; any other container, and any mp4 that trims its streams or fails the check, is demuxed once instead.

Decode order ("place") and display order ("rank") are two numberings: with B-frames they differ.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

MAX_TABLE_BYTES = 256 << 20


@dataclass(frozen=True)
class VideoIndex:
    """The frames of one file. Arrays over ranks are in display order, arrays over places in decode order."""

    time_base: Fraction
    pts: np.ndarray
    """(frames,) int64: display time of each rank in units of `time_base`, ascending."""
    place: np.ndarray
    """(frames,) int32: where in decode order the frame of each rank is."""
    key: np.ndarray
    """(frames,) int32: the place decoding has to start at to get the frame of each rank; -1 if there is none."""
    packet_pts: np.ndarray
    """(places,) int64: display time of every packet in decode order, those never shown included."""
    is_from_tables: bool = False
    note: str = ""
    """Why there are no more frames, when the file did not end in the regular way."""

    @cached_property
    def times_s(self) -> np.ndarray:
        """(frames,) float64: display time of each rank."""
        return self.pts * float(self.time_base)

    @property
    def num_bytes(self) -> int:
        return self.pts.nbytes + self.place.nbytes + self.key.nbytes + self.packet_pts.nbytes

    def nearest(self, times_s: np.ndarray) -> np.ndarray:
        """The rank shown closest to each time. The index must hold at least one frame."""
        shown_s = self.times_s
        after = np.clip(np.searchsorted(shown_s, times_s), 1, max(len(shown_s) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(shown_s) - 1)
        return np.where(times_s - shown_s[before] <= shown_s[after] - times_s, before, after)


def build_index(path: Path, container: Any, stream: Any) -> VideoIndex:
    """Index of `stream`, whose container was just opened. Leaves the read position anywhere."""
    return index_from_tables(path, container, stream) or index_from_packets(path)


def index_from_packets(path: Path) -> VideoIndex:
    """Index by reading every packet of the file: exact for any container, but it reads the whole file."""
    rows: list[tuple[int, bool, bool]] = []
    note = ""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:  # the empty packet at the end has none
                    rows.append((packet.pts, packet.is_keyframe, not (packet.is_discard or packet.is_corrupt)))
        except av.FFmpegError as error:
            note = f"reading past packet {len(rows)} fails ({error.strerror or error})"
        table = np.array(rows, np.int64).reshape(-1, 3)
        time_base = stream.time_base or Fraction(1)
    return _assemble(time_base, table[:, 0], table[:, 1] > 0, table[:, 2] > 0, note=note)


def _assemble(
    time_base: Fraction, packet_pts: np.ndarray, is_key: np.ndarray, is_shown: np.ndarray, **about: Any
) -> VideoIndex:
    pts, places = packet_pts, np.arange(len(packet_pts))
    key = np.maximum.accumulate(np.where(is_key, places, -1))
    # A frame shown before the key frame it follows in the file (open GOP) leans on the key frame before that one.
    leading = (key >= 0) & (pts < pts[key])
    earlier = np.where(key > 0, key[np.maximum(key - 1, 0)], -1)
    key = np.where(leading, earlier, key)
    order = np.argsort(pts, kind="stable")
    order = order[is_shown[order]]
    return VideoIndex(time_base, pts[order], order.astype(np.int32), key[order].astype(np.int32), packet_pts, **about)


def index_from_tables(path: Path, container: Any, stream: Any) -> VideoIndex | None:
    """Index from the mp4's sample tables; None when the file has none that can be trusted."""
    try:
        moov = _read_moov(path)
        tables = moov and _sample_tables(moov, stream.id, stream.time_base)
    except (OSError, struct.error, LookupError, ValueError, ArithmeticError):
        return None
    if not tables:
        return None
    pts, is_key = tables
    try:  # the demuxer applies the edit list: learn the shift from its first packet
        first = next(iter(container.demux(stream)))
        if first.pts is None:
            return None
        pts = pts + (first.pts - pts[0])
        container.seek(int(pts[is_key].max()), stream=stream, backward=True)
        last = next(iter(container.demux(stream)))
    except (av.FFmpegError, ValueError):
        return None
    if last.pts is not None and not is_key[pts == last.pts].any():
        return None
    return _assemble(stream.time_base, pts, is_key, np.ones(len(pts), bool), is_from_tables=True)


def _read_moov(path: Path) -> bytes | None:
    """The body of the file's `moov` box, where an mp4 keeps its tables."""
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            box_bytes, kind = struct.unpack(">I4s", head[:8])
            head_bytes = 8
            if box_bytes == 1:
                box_bytes, head_bytes = struct.unpack(">Q", head[8:])[0], 16
            elif box_bytes == 0:
                box_bytes = size - at
            if box_bytes < head_bytes or (at + box_bytes > size and kind == b"moov"):
                return None
            if kind == b"moov":
                file.seek(at + head_bytes)
                return file.read(box_bytes - head_bytes) if box_bytes <= MAX_TABLE_BYTES else None
            at += box_bytes
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(data):
        box_bytes, kind = struct.unpack_from(">I4s", data, at)
        head_bytes = 8
        if box_bytes == 1:
            box_bytes, head_bytes = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif box_bytes == 0:
            box_bytes = len(data) - at
        if box_bytes < head_bytes:
            return
        yield kind, data[at + head_bytes : at + box_bytes]
        at += box_bytes


def _sample_tables(moov: bytes, track_id: int, time_base: Fraction) -> tuple[np.ndarray, np.ndarray] | None:
    """(display times up to a shift, whether it is a key frame) of a track's packets in decode order."""
    movie_scale = 0
    for kind, body in _boxes(memoryview(moov)):
        if kind == b"mvex":  # fragments: the tables are spread over the file
            return None
        if kind == b"mvhd":
            movie_scale = struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0]
    for kind, trak in _boxes(memoryview(moov)):
        if kind != b"trak":
            continue
        boxes = dict(_boxes(trak))
        header = boxes[b"tkhd"]
        if struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0] == track_id:
            break
    else:
        return None
    media = dict(_boxes(boxes[b"mdia"]))
    scale = struct.unpack_from(">I", media[b"mdhd"], 20 if media[b"mdhd"][0] == 1 else 12)[0]
    if Fraction(1, scale) != time_base:
        return None
    table = dict(_boxes(dict(_boxes(media[b"minf"]))[b"stbl"]))
    if b"stsz" not in table or b"stps" in table:
        return None
    count = struct.unpack_from(">I", table[b"stsz"], 8)[0]
    steps = _runs(table[b"stts"], np.dtype(">u4"), count)
    if steps.max() >= 1 << 31:
        return None
    offsets = _runs(table[b"ctts"], np.dtype(">i4"), count) if b"ctts" in table else 0
    pts = np.cumsum(steps) - steps + offsets
    is_key = np.ones(count, bool)
    if b"stss" in table:
        is_key[:] = False
        is_key[np.frombuffer(table[b"stss"], ">u4", offset=8).astype(np.int64) - 1] = True
    edits = dict(_boxes(boxes[b"edts"])).get(b"elst") if b"edts" in boxes else None
    if edits is not None and not _shows_everything(edits, pts, scale, movie_scale):
        return None
    return pts, is_key


def _runs(box: memoryview, value: np.dtype, count: int) -> np.ndarray:
    """A run-length table (stts, ctts) written out, one int64 for each of `count` samples."""
    pairs = np.frombuffer(box, np.dtype([("count", ">u4"), ("value", value)]), offset=8)
    if count == 0 or pairs["count"].sum(dtype=np.int64) != count:
        raise ValueError("a table of another length than the track")
    return np.repeat(pairs["value"].astype(np.int64), pairs["count"].astype(np.int64))


def _shows_everything(elst: memoryview, pts: np.ndarray, scale: int, movie_scale: int) -> bool:
    """Whether an edit list only shifts the track in time: waits, then one stretch that covers every frame."""
    layout = ">QqI" if elst[0] == 1 else ">IiI"
    entries = [
        struct.unpack_from(layout, elst, 8 + i * struct.calcsize(layout))
        for i in range(struct.unpack_from(">I", elst, 4)[0])
    ]
    while entries and entries[0][1] == -1:
        entries = entries[1:]
    if len(entries) != 1 or entries[0][2] != 1 << 16 or movie_scale == 0:
        return False
    length, start, _ = entries[0]
    return start <= pts.min() and (start + Fraction(length, movie_scale) * scale) > pts.max()
