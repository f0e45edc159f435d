"""Files that are whole or absent: written beside their name, on disk before they get it.

`durable=False` skips the waiting for the disk. A killed process still leaves only whole files; a power cut may not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import DatasetError


def unfinished_name(target: Path) -> Path:
    """Where to write `target` until it is whole. The name begins with a dot, so that no glob takes it for data."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.part")


def publish(target: Path, *, durable: bool = True) -> None:
    """Gives the file at `unfinished_name(target)` its real name."""
    unfinished = unfinished_name(target)
    if durable:
        sync_file(unfinished)
    os.replace(unfinished, target)
    if durable:
        sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Waits until a file's content is on disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in `folder` are on disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, document: Any, *, durable: bool = True) -> None:
    """A JSON file as LeRobot formats it."""
    unfinished_name(path).write_text(json.dumps(document, indent=4, ensure_ascii=False), encoding="utf-8")
    publish(path, durable=durable)


def read_json(path: Path) -> Any:
    """The document in a JSON file that this package wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}: {error}. It was changed by hand, or the disk is failing.") from error
