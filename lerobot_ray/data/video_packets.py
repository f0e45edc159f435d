"""Where a decoder gets its packets: from the file where its demuxer lists them, from the demuxer where it does not.

The demuxer of an mp4 has a table of all packets. Reading a packet's bytes where that table says costs a fraction of
seeking there and demuxing, which for a random frame is a tenth of the work. Places are those of `video_index`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol

import av
import numpy as np

from lerobot_ray.data.video_index import VideoIndex


class PacketSource(Protocol):
    """The packets of one stream, from any key frame on."""

    def seek(self, key: int) -> int | None:
        """Flush the decoder and stand before the key frame at place `key`, or before an earlier one; that place.

        None when nothing can be read there.
        """

    def read(self) -> Any | None:
        """The next packet; None at the end of the file."""

    def close(self) -> None:
        """Give back what is open."""


def open_packets(path: str, container: Any, stream: Any, index: VideoIndex) -> PacketSource:
    """The cheapest source for `stream`."""
    entries = getattr(stream, "index_entries", ())  # PyAV 16 and later
    if index.is_from_tables and len(entries) == len(index.packet_pts):
        return ListedPackets(path, stream, index)
    return DemuxedPackets(container, stream, index)


class ListedPackets:
    """Packets read from the file where the demuxer's table says they are."""

    def __init__(self, path: str, stream: Any, index: VideoIndex) -> None:
        self._context, self._entries, self._pts = stream.codec_context, stream.index_entries, index.packet_pts
        self._time_base = stream.time_base
        self._file = os.open(path, os.O_RDONLY)
        self._next = 0

    def seek(self, key: int) -> int | None:
        self._context.flush_buffers()
        self._next = key
        return key if self._entries[key].is_keyframe else None

    def read(self) -> Any | None:
        if self._next >= len(self._pts):
            return None
        entry = self._entries[self._next]
        data = os.pread(self._file, entry.size, entry.pos)
        if len(data) < entry.size or not data:
            return None
        packet = av.Packet(data)
        packet.pts, packet.dts, packet.time_base = self._pts.item(self._next), entry.timestamp, self._time_base
        packet.is_keyframe = entry.is_keyframe
        self._next += 1
        return packet

    def close(self) -> None:
        os.close(self._file)


class DemuxedPackets:
    """Packets from the container's demuxer, found again by their display times after a seek."""

    def __init__(self, container: Any, stream: Any, index: VideoIndex) -> None:
        self._container, self._stream, self._index = container, stream, index
        self._packets: Iterator[Any] | None = None
        self._waiting: Any | None = None
        """Read by `seek` and not given out yet."""

    def seek(self, key: int) -> int | None:
        wanted = int(self._index.packet_pts[key])
        # mp4 seeks by display time and lands on the key frame; a container that overshoots is asked again, from further
        # back.
        for back_s in (0, 1, 60):
            self._packets = None
            back = int(back_s / self._index.time_base) if back_s else 0  # fractions are slow
            self._container.seek(wanted - back, stream=self._stream, backward=True)  # flushes the decoder too
            self._waiting = self._demux()
            place = None if self._waiting is None else self._place(self._waiting)
            if place is not None and place <= key:
                return place
        return None

    def read(self) -> Any | None:
        packet, self._waiting = self._waiting, None
        return packet if packet is not None else self._demux()

    def close(self) -> None:
        self._packets = self._waiting = None

    def _demux(self) -> Any | None:
        if self._packets is None:
            self._packets = iter(self._container.demux(self._stream))
        packet = next(self._packets, None)
        if packet is None or packet.size == 0:
            self._packets = None
            return None
        return packet

    def _place(self, packet: Any) -> int | None:
        index = self._index
        if packet.pts is None:
            return None
        rank = int(np.searchsorted(index.pts, packet.pts))
        if rank < len(index.pts) and index.pts[rank] == packet.pts:
            return int(index.place[rank])
        hidden = np.flatnonzero(index.packet_pts == packet.pts)
        return int(hidden[0]) if len(hidden) else None
