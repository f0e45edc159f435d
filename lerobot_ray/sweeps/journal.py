"""`sweep.jsonl`: everything that happened in a sweep, one line each, in order. What a resume reads, and the page.

A line is written before what it says is acted on, and synced: a driver that is killed loses nothing it has done. The
last line may be torn; whoever reads skips it, whoever goes on begins a new one.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import ConfigError

JOURNAL_FILE = "sweep.jsonl"
Event = dict[str, Any]


class Journal:
    """Appends to a folder's journal."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / JOURNAL_FILE
        content = self._path.read_bytes() if self._path.exists() else b""
        if content and not content.endswith(b"\n"):
            self._append(b"\n")

    def add(self, event: str, **values: Any) -> Event:
        """Write one line; the event as a reader will see it."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        self._append(line.encode() + b"\n")
        return json.loads(line)

    def _append(self, content: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_journal(folder: Path) -> list[Event]:
    """The events of a sweep's folder, oldest first; none for a folder without a sweep."""
    path = folder / JOURNAL_FILE
    if not path.is_file():
        return []
    events = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            events.append(json.loads(line))
        except ValueError as error:
            if any(rest.strip() for rest in lines[number + 1 :]) and not events:
                raise ConfigError(f"{path} is not a sweep's journal. Give another --output_dir.") from error
    return events
