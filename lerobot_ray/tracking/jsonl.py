"""`metrics.jsonl`, always written: one JSON object a line, appended. `metric_log` reads it back.

    {"event": "start", "step": 0, "time": 1763..., "attempt": 1, "config": {...}, ...}      one start of the run
    {"step": 200, "time": 1763..., "attempt": 1, "train/loss": 0.31, "train/lr": 1e-05}     numbers
    {"event": "checkpoint", "step": 2000, ..., "path": "checkpoints/002000"}
    {"event": "end", "step": 2000, ..., "status": "finished", "message": ""}

`step` counts optimizer steps taken, `time` is Unix seconds. An attempt is one start of the run; its number is its place
in this file. A value that is not finite is null.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.tracking.protocol import Outcome, RunInfo
from lerobot_ray.tracking.redact import redacted_text

METRICS_FILE = "metrics.jsonl"


class JsonlTracker:
    """Appends to `<output_dir>/metrics.jsonl`. Each call is one write of one line, so a kill tears at most the last."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file: int | None = None
        self._output_dir = Path()
        self._attempt = 0
        self._last_step = 0
        self._is_torn = False

    def start(self, run: RunInfo) -> None:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        path = run.output_dir / METRICS_FILE
        self._output_dir, self._last_step = run.output_dir, run.first_step
        self._attempt = _last_attempt(path) + 1
        if self._file is None:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._is_torn = _ends_torn(path)
        self._event(
            "start",
            step=run.first_step,
            name=run.name,
            total_steps=run.total_steps,
            samples_seen=run.samples_seen,
            world_size=run.world_size,
            global_batch=run.global_batch,
            facts=run.facts,
            environment={key: value for key, value in run.environment.items() if key != "packages"},
            config=run.config,
        )

    def log(self, values: Mapping[str, float], *, step: int, time_s: float | None = None) -> None:
        self._last_step = max(self._last_step, step)
        stamp = round(self._clock() if time_s is None else time_s, 3)
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._write({"step": step, "time": stamp, "attempt": self._attempt, **finite})

    def log_checkpoint(self, checkpoint: Path, *, step: int) -> None:
        self._last_step = max(self._last_step, step)
        inside = checkpoint.is_relative_to(self._output_dir)
        path = checkpoint.relative_to(self._output_dir).as_posix() if inside else str(checkpoint)
        self._event("checkpoint", step=step, path=path)

    def log_file(self, path: Path, *, folder: str = "") -> None:
        """Nothing: the file is in the output folder already."""

    def close(self, outcome: Outcome) -> None:
        if self._file is not None:
            try:
                self._event("end", step=self._last_step, status=outcome.status, message=redacted_text(outcome.message))
                os.fsync(self._file)
            finally:
                os.close(self._file)
                self._file = None

    def _event(self, event: str, *, step: int, **values: Any) -> None:
        self._write({"event": event, "step": step, "time": round(self._clock(), 3), "attempt": self._attempt, **values})

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None, "start comes first"
        text = json.dumps(line, allow_nan=False, default=str)
        content = (("\n" if self._is_torn else "") + text + "\n").encode()
        self._is_torn = True  # until all of it is written: a full disk may take a part
        written = os.write(self._file, content)
        if written < len(content):
            raise OSError(f"{METRICS_FILE}: only {written} of {len(content)} bytes could be written; the disk is full?")
        self._is_torn = False


def append_numbers(output_dir: Path, values: Mapping[str, float], *, step: int) -> None:
    """A line of numbers that were known only after the run had ended. Nothing else may be writing."""
    tracker = JsonlTracker()
    path = output_dir / METRICS_FILE
    tracker._attempt, tracker._is_torn = max(1, _last_attempt(path)), path.exists() and _ends_torn(path)
    tracker._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        tracker.log(values, step=step)
    finally:
        os.close(tracker._file)


def _last_attempt(path: Path) -> int:
    if not path.exists():
        return 0
    last = 0
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b'{"event": "start"'):
                try:
                    last = max(last, int(json.loads(line)["attempt"]))
                except (ValueError, KeyError, TypeError):
                    continue  # torn
    return last


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
