"""The record of what was trained on: one row per sample, kept beside the checkpoints.

    <output_dir>/audit/attempt-0002/_attempt.json                     where this attempt began
                                    rank-00003-part-000000.parquet    rows of one rank, never changed once named

`audit/` is one Parquet dataset for any tool that reads folders of them (names that begin with "_" or "." are not data).
An attempt is one start of the training processes: the first, and one more for each restart or resume. A restarted run
goes back to its checkpoint and trains some steps again, so rows of an earlier attempt count only up to the step where a
later one began. `audit_check` applies that rule, and proves that nothing is missing or twice.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.core.errors import StorageError

AUDIT_DIR = "audit"
ATTEMPT_FILE = "_attempt.json"
SCHEMA = pa.schema(
    [
        ("attempt", pa.int32()),
        ("step", pa.int64()),
        ("rank", pa.int32()),
        ("stream_index", pa.int64()),
        ("episode", pa.int64()),
        ("frame", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of the training processes, and what a reader needs to know which rows it owes."""

    number: int
    first_step: int
    """The first optimizer step this attempt trains (0 for a new run)."""
    samples_seen: int
    """The stream index where that step begins."""
    global_batch: int
    world_size: int


def begin_attempt(
    output_dir: str | Path, *, first_step: int, samples_seen: int, global_batch: int, world_size: int
) -> Attempt:
    """The next attempt, its number claimed for good. Called once per start, by one process, which tells the others."""
    audit = Path(output_dir) / AUDIT_DIR
    number = max((attempt_number(folder) for folder in audit.glob("attempt-*")), default=0)
    while True:
        number += 1
        folder = attempt_folder(audit, number)
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # another start was faster
            continue
        except OSError as error:
            raise _cannot_write(folder, error) from error
    attempt = Attempt(
        number=number,
        first_step=first_step,
        samples_seen=samples_seen,
        global_batch=global_batch,
        world_size=world_size,
    )
    _write_whole(folder / ATTEMPT_FILE, json.dumps(asdict(attempt), indent=1).encode())
    return attempt


class AuditWriter:
    """One rank's rows. Buffers them; a part appears under its name when it is whole and on disk."""

    def __init__(self, output_dir: str | Path, attempt: Attempt, *, rank: int, rows_per_part: int = 1 << 16) -> None:
        self._folder = attempt_folder(Path(output_dir) / AUDIT_DIR, attempt.number)
        self._attempt, self._rank, self._rows_per_part = attempt, rank, rows_per_part
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._num_rows = 0
        self._next_part = 0

    def add(self, *, step: int, stream_index: Any, episode: Any, frame: Any) -> None:
        """Samples trained on in `step`: equally long int arrays or CPU tensors. Called after the optimizer step."""
        columns = [np.array(values, dtype=np.int64).reshape(-1) for values in (stream_index, episode, frame)]
        self._rows.append((np.full(len(columns[0]), step, dtype=np.int64), *columns))
        self._num_rows += len(columns[0])
        if self._num_rows >= self._rows_per_part:
            self.flush()

    def flush(self) -> None:
        """Put the buffered rows on disk. A checkpoint of a step is committed only after this: see `audit_check`."""
        if not self._num_rows:
            return
        step, stream_index, episode, frame = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        table = pa.table(
            {
                "attempt": np.full(len(step), self._attempt.number),
                "step": step,
                "rank": np.full(len(step), self._rank),
                "stream_index": stream_index,
                "episode": episode,
                "frame": frame,
            }
        ).cast(SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        _write_whole(self._folder / f"rank-{self._rank:05d}-part-{self._next_part:06d}.parquet", sink.getvalue())
        self._next_part += 1
        self._rows, self._num_rows = [], 0

    def close(self) -> None:
        self.flush()

    def __enter__(self) -> AuditWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attempt_folder(audit: Path, number: int) -> Path:
    return audit / f"attempt-{number:04d}"


def attempt_number(folder: Path) -> int:
    number = folder.name.removeprefix("attempt-")
    return int(number) if number.isdigit() else 0


def _write_whole(path: Path, content: Any) -> None:
    """All of the content under this name, or nothing: written beside it, on disk, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)  # the name is on disk when its folder is
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot write the audit ({error}). Make room there, or train without an audit.")
