"""Checkpoints of a run in its store: the same folders as on the disk, `manifest.json` written last and removed first.

So a step with a manifest is whole, wherever an upload was cut off. Reading compares every byte with the manifest's
hashes. The run's small files (audit, metrics, scores, report) go before the manifest of the step they belong to.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from lerobot_ray.checkpoint.commit import (
    MANIFEST_NAME,
    commit_fetched,
    complete_checkpoints,
    damaged_files,
    file_sha256,
)
from lerobot_ray.checkpoint.store import RunStore
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, LAST_LINK
from lerobot_ray.data.audit import AUDIT_DIR
from lerobot_ray.data.storage import cache_home

logger = logging.getLogger(__name__)

SMALL_FILES = ("*.json", "*.jsonl", "*.html", "eval/*.json", f"{CHECKPOINTS_DIR}/*.json", f"{AUDIT_DIR}/*/*")
_SMALL = re.compile("|".join(re.escape(pattern).replace(r"\*", "[^/]+") for pattern in SMALL_FILES))
_MANIFEST = re.compile(rf"{CHECKPOINTS_DIR}/(?P<name>\d+)/{re.escape(MANIFEST_NAME)}")
_FETCHED = re.compile(rf"/stores/(?P<address>[^/]+)/{CHECKPOINTS_DIR}/(?P<name>\d+)(?P<inside>(/.*)?)$")


def stored_steps(store: RunStore) -> dict[int, str]:
    """Step -> folder name of the whole checkpoints in the store, oldest first."""
    names = [found["name"] for path in store.files(CHECKPOINTS_DIR) if (found := _MANIFEST.fullmatch(path))]
    return {int(name): name for name in sorted(names, key=int)}


def is_stored(store: RunStore, checkpoint: Path) -> bool:
    """Whether the whole checkpoint of this name there is this very one."""
    place = f"{CHECKPOINTS_DIR}/{checkpoint.name}"
    if not (checkpoint / MANIFEST_NAME).is_file() or f"{place}/{MANIFEST_NAME}" not in store.files(place):
        return False
    return store.read(f"{place}/{MANIFEST_NAME}") == _manifest(checkpoint)


def upload_checkpoint(store: RunStore, checkpoint: Path) -> None:
    """Copy a complete checkpoint there. Until its manifest is written, nobody takes it for one."""
    place = f"{CHECKPOINTS_DIR}/{checkpoint.name}"
    manifest = _manifest(checkpoint)
    there = store.files(place)
    if f"{place}/{MANIFEST_NAME}" in there:
        if store.read(f"{place}/{MANIFEST_NAME}") == manifest:
            return
        store.remove(f"{place}/{MANIFEST_NAME}")
    files = {f"{place}/{path}": checkpoint / path for path in sorted(json.loads(manifest)["files"])}
    for path, file in files.items():
        store.put(file, path)
    for path in there.keys() - files.keys():
        store.remove(path)
    store.put(manifest, f"{place}/{MANIFEST_NAME}")


def remove_stored(store: RunStore, name: str) -> None:
    """Delete a checkpoint there, its manifest first."""
    place = f"{CHECKPOINTS_DIR}/{name}"
    store.remove(f"{place}/{MANIFEST_NAME}")
    for path in store.files(place):
        store.remove(path)


def sweep_stored(store: RunStore) -> None:
    """Remove files of steps without a manifest: of uploads that were cut off."""
    files = store.files(CHECKPOINTS_DIR)
    whole = {found["name"] for path in files if (found := _MANIFEST.fullmatch(path))}
    for path in files:
        name = path.split("/")[1]
        if name.isdigit() and name not in whole:
            store.remove(path)


def fetch_checkpoint(store: RunStore, name: str, run_dir: Path) -> Path:
    """The checkpoint `name` of the store, here below `run_dir`. CheckpointError when its bytes are not those saved."""
    place = f"{CHECKPOINTS_DIR}/{name}"
    manifest = store.read(f"{place}/{MANIFEST_NAME}")
    final = run_dir / CHECKPOINTS_DIR / name
    if damaged_files(final) == [] and _manifest(final) == manifest:
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    writing = final.with_name(f".writing-{name}-{uuid.uuid4().hex[:8]}")
    try:
        files: Mapping[str, Mapping] = json.loads(manifest)["files"]
        for path, entry in files.items():
            if _leads_out(path):
                raise CheckpointError(f"{store.url}/{place}/{MANIFEST_NAME} names {path}, which is not in its folder.")
            store.get(f"{place}/{path}", writing / path)
            if (writing / path).stat().st_size != entry["bytes"] or file_sha256(writing / path) != entry["sha256"]:
                raise CheckpointError(
                    f"{store.url}/{place}/{path} is not the file that was saved (cut short or changed). Resume from an "
                    "earlier step there."
                )
        commit_fetched(writing, final, manifest)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    return final


def bring_back(store: RunStore, run_dir: Path, *, newer_than: int = -1) -> None:
    """What the store has of a run and its folder has not: the newest checkpoint, and the small files.

    A checkpoint whose bytes are not those saved is passed over for the one before, with a warning.
    """
    newest = max(newer_than, *(int(path.name) for path in complete_checkpoints(run_dir)), -1)
    for step, name in reversed(stored_steps(store).items()):
        if step <= newest:
            break
        try:
            fetch_checkpoint(store, name, run_dir)
        except CheckpointError as error:
            logger.warning("%s", error)
            continue
        logger.info("step %d was brought here from %s", step, store.url)
        break
    fetch_small_files(store, run_dir)


def fetch_small_files(store: RunStore, run_dir: Path) -> None:
    """The run's small files that are not here, and logs that are longer there."""
    for path, size in store.files().items():
        here = run_dir / path
        if not _SMALL.fullmatch(path) or here.name.startswith(".") or _leads_out(path):
            continue
        if not here.exists() or (here.suffix == ".jsonl" and here.stat().st_size < size):
            beside = here.with_name(f".{here.name}.part")
            store.get(path, beside)
            os.replace(beside, here)


def upload_small_files(store: RunStore, run_dir: Path) -> None:
    """The run's small files that are not there, or of another size; JSON in any case: it changes within its size."""
    there = store.files()
    for file in sorted(found for pattern in SMALL_FILES for found in run_dir.glob(pattern)):
        path = file.relative_to(run_dir).as_posix()
        if file.name.startswith(".") or (file.suffix == ".parquet" and there.get(path) == file.stat().st_size):
            continue
        content = file.read_bytes()
        if file.suffix == ".jsonl":  # whole lines: somebody may be writing
            content = content[: content.rfind(b"\n") + 1]
        if file.suffix == ".json" or there.get(path) != len(content):
            store.put(content, path)


# By URL


def fetch_by_url(url: str, *, step: str | None = None) -> Path:
    """The checkpoint that a URL names, in this machine's cache: the newest of a run, or …/checkpoints/005000.

    The run's small files come along. CheckpointError lists the steps there are when the one asked for is not.
    """
    address, wanted = _run_of(url)
    store = RunStore(address)
    steps = stored_steps(store)
    if not steps:
        raise CheckpointError(f"there is no whole checkpoint below {store.url}/{CHECKPOINTS_DIR}.")
    wanted = step or wanted or steps[max(steps)]
    name = steps.get(int(wanted)) if wanted.isdigit() else None
    if name is None:
        raise CheckpointError(f"{store.url} has no whole checkpoint {wanted}. It has {', '.join(steps.values())}.")
    logger.info("fetching %s/%s/%s", store.url, CHECKPOINTS_DIR, name)
    return _in_cache(store, name)


def fetched_on_this_node(path: Path) -> Path | None:
    """The same folder on this machine, if it is, on the machine that names it, in the cache of `fetch_by_url`."""
    found = _FETCHED.search(str(path))
    if found is None:
        return None
    if path.is_dir():
        return path
    return Path(f"{_in_cache(RunStore(unquote(found['address'])), found['name'])}{found['inside']}")


def _in_cache(store: RunStore, name: str) -> Path:
    """The checkpoint in this machine's cache. The processes of a machine fetch it once."""
    from filelock import FileLock

    place = cache_home() / "stores" / quote(store.address, safe="")
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):
        fetch_small_files(store, place)
        return fetch_checkpoint(store, name, place)


def _run_of(url: str) -> tuple[str, str]:
    """(address of the run, name of the step or "")."""
    split = urlsplit(url)
    run, _, step = split.path.rstrip("/").partition(f"/{CHECKPOINTS_DIR}")
    name = step.strip("/").split("/")[0]
    return urlunsplit(split._replace(path=run)), "" if name == LAST_LINK else name


def _manifest(checkpoint: Path) -> bytes:
    return (checkpoint / MANIFEST_NAME).read_bytes()


def _leads_out(path: str) -> bool:
    return path.startswith("/") or ".." in path.split("/")
