"""Which Xet hash a file has, read from the shards that `hf_xet` leaves in a local CAS folder."""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER, _RECORD, _END = 48, 48, b"\xff" * 32
_HAS_SHA256, _HAS_VERIFICATION = 1 << 30, 1 << 31


def hashes_in(folder: Path) -> dict[str, str]:
    """sha256 of a file's content -> its Xet hash."""
    found: dict[str, str] = {}
    for shard in sorted(folder.rglob("*.mdb")):
        found |= _hashes_in_shard(shard.read_bytes())
    return found


def _hashes_in_shard(data: bytes) -> dict[str, str]:
    found, at = {}, _HEADER
    while at + _RECORD <= len(data) and data[at : at + 32] != _END:
        file_hash, flags, segments = data[at : at + 32], *struct.unpack_from("<II", data, at + 32)
        at += _RECORD * (1 + segments * (2 if flags & _HAS_VERIFICATION else 1))
        if flags & _HAS_SHA256:
            found[_text(data[at : at + 32])] = _text(file_hash)
            at += _RECORD
    return found


def _text(raw: bytes) -> str:
    """Four little-endian words, each printed as a number."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
