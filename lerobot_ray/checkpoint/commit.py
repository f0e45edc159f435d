"""A checkpoint exists when it is complete: written beside its final name, hashed, synced, then renamed into place.

    checkpoints/
      .writing-005000-3f1c/     being written; any crash leaves it here, and the next commit or `sweep` removes it
      005000/                   complete: `manifest.json` names every file with its size and SHA-256
      last -> 005000            a relative link to the newest complete checkpoint

The rename is the commit. A reader that lists step folders sees whole checkpoints only; `verify` also catches what
happened to the bytes afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, LAST_LINK

MANIFEST_NAME = "manifest.json"
_WRITING = ".writing-"
_REPLACED = ".replaced-"
_CHUNK_BYTES = 8 << 20


def step_name(step: int, total_steps: int) -> str:
    """The folder of a step: its number, padded to six digits or as many as the last step has."""
    return str(step).zfill(max(6, len(str(total_steps))))


Entries = dict[str, dict[str, Any]]
"""File name in a checkpoint -> its `bytes` and `sha256`."""


def writing_folder(run_dir: Path, step: int, *, total_steps: int, mark: str) -> Path:
    """Where a checkpoint is written before it is one. `mark` is one start's of the run, the same for all its ranks."""
    return run_dir / CHECKPOINTS_DIR / f"{_WRITING}{step_name(step, total_steps)}-{mark}"


@contextmanager
def new_checkpoint(
    run_dir: Path, step: int, *, total_steps: int, mark: str | None = None, hashed: Entries | None = None
) -> Iterator[Path]:
    """A folder to write a checkpoint into; committed as `checkpoints/<step>` when the block ends without an error.

    An existing checkpoint of that step is replaced, whole by whole. On an error nothing of the new one stays. Other
    processes may write into it when they have its `mark`: `hashed`, filled in the block, has their files, synced.
    """
    writing = writing_folder(run_dir, step, total_steps=total_steps, mark=mark or uuid.uuid4().hex[:8])
    writing.mkdir(parents=True, exist_ok=mark is not None)
    parent, name = writing.parent, step_name(step, total_steps)
    try:
        yield writing
        commit(writing, parent / name, hashed=hashed)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    point_last_at(parent / name)


def commit(writing: Path, final: Path, *, hashed: Entries | None = None) -> None:
    """Make `writing`, a finished folder on the same file system, the checkpoint `final`."""
    write_manifest(writing, hashed=hashed)
    _rename_into_place(writing, final)


def commit_fetched(writing: Path, final: Path, manifest: bytes) -> None:
    """As `commit`, of files that were compared with the manifest they came with. `last` follows."""
    (writing / MANIFEST_NAME).write_bytes(manifest)
    for path in (path for path in writing.rglob("*") if path.is_file()):
        _sync(path)
    _rename_into_place(writing, final)
    point_last_at(final)


def _rename_into_place(writing: Path, final: Path) -> None:
    for folder in sorted((path for path in writing.rglob("*") if path.is_dir()), reverse=True):
        _sync(folder)
    _sync(writing)
    aside = final.with_name(_REPLACED + final.name)
    if final.exists():  # the same step again, after a retry: a rename cannot replace a folder that is not empty
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)  # killed after this line, `sweep` puts it back
    writing.rename(final)
    shutil.rmtree(aside, ignore_errors=True)
    _sync(final.parent)


def write_manifest(folder: Path, *, hashed: Entries | None = None) -> None:
    """Record size and hash of every file below `folder` in `manifest.json`, all synced. `hashed` need not be read."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME):
        name = path.relative_to(folder).as_posix()
        files[name] = (hashed or {}).get(name) or synced_entry(path)
    manifest = folder / MANIFEST_NAME
    manifest.write_text(json.dumps({"files": files}, indent=2))
    _sync(manifest)


def synced_entry(path: Path) -> dict[str, Any]:
    """Sync a file; what a manifest says of it."""
    _sync(path)
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def complete_checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first. Cheap: trusts the rename and the sizes, not the bytes."""
    parent = run_dir / CHECKPOINTS_DIR
    if not parent.is_dir():
        return []
    found = [
        path for path in parent.iterdir() if path.name.isdigit() and not path.is_symlink() and damaged_files(path) == []
    ]
    return sorted(found, key=lambda path: int(path.name))


def verify(checkpoint: Path) -> None:
    """Raise CheckpointError unless every file of the checkpoint is there with the bytes that were committed."""
    manifest = _manifest(checkpoint)
    if manifest is None:
        raise CheckpointError(
            f"{checkpoint} has no {MANIFEST_NAME}: it was not finished, or not written by this package."
        )
    for name, entry in manifest.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:
            raise CheckpointError(
                f"{path} is not the file that was saved (missing, cut short or changed). "
                f"Resume from an earlier checkpoint in {checkpoint.parent}."
            )


def sweep(run_dir: Path) -> None:
    """Remove what crashed writers left. Call when no writer of this run is alive: at start-up."""
    parent = run_dir / CHECKPOINTS_DIR
    for aside in parent.glob(f"{_REPLACED}*"):
        final = parent / aside.name.removeprefix(_REPLACED)
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(final)
    for leftover in parent.glob(f"{_WRITING}*"):
        leftover.unlink() if leftover.is_symlink() else shutil.rmtree(leftover, ignore_errors=True)


def point_last_at(checkpoint: Path) -> None:
    """Let `last` name this checkpoint; the link is replaced in one rename, never missing in between."""
    link = checkpoint.parent / LAST_LINK
    fresh = checkpoint.parent / f"{_WRITING}{LAST_LINK}-{uuid.uuid4().hex[:8]}"
    fresh.symlink_to(checkpoint.name)
    os.replace(fresh, link)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def damaged_files(checkpoint: Path) -> list[str] | None:
    """Files that are missing or of another size than was committed; None when there is no manifest to go by."""
    manifest = _manifest(checkpoint)
    if manifest is None:
        return None
    paths = {name: checkpoint / name for name in manifest}
    return [
        name for name, path in paths.items() if not path.is_file() or path.stat().st_size != manifest[name]["bytes"]
    ]


def _manifest(checkpoint: Path) -> dict[str, dict] | None:
    try:
        return json.loads((checkpoint / MANIFEST_NAME).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
