"""From a repository to a folder of this machine: a checkpoint to resume, a policy to start from, a config to read.

Files go to the cache of `huggingface_hub`, which takes care that the processes of a node fetch each once. Every file is
then held against the digest the Hub lists for it, and a checkpoint against its own manifest, once per node.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lerobot_ray.checkpoint.commit import MANIFEST_NAME
from lerobot_ray.core.layout import CHECKPOINTS_DIR
from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.hub_storage import is_offline
from lerobot_ray.data.retry import RetryPolicy
from lerobot_ray.hub.client import HubError, ask, endpoint
from lerobot_ray.hub.content import Entry, is_same, list_files, list_refs, steps_of
from lerobot_ray.hub.place import Place, Wanted, find_place, wanted_files

logger = logging.getLogger(__name__)

_IN_CACHE = re.compile(r"(?P<cache>.*)/models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})")
_MB = 1e6


def fetch(
    repo_id: str, *, revision: str | None = None, what: Wanted = "policy", retry: RetryPolicy | None = None
) -> Path:
    """The folder with what is wanted of a repository.

    `what`: a checkpoint (complete, tagged, the newest without a `revision`); a policy (that of the root, or of the
    newest checkpoint); a config (as a policy's, without weights). `revision`: a step, tag, branch or commit. HubError
    lists the steps there are when the one asked for is not among them.
    """
    note = f"hub-models--{repo_id.replace('/', '--')}/{what}-{quote(revision or 'latest', safe='')}"
    cache = FileCache()
    if is_offline():
        retry = RetryPolicy(attempts=1)
        kept = cache.read_note(note)
        if kept is None:
            return _snapshot_here(repo_id, revision, what)
        place = Place.from_json(kept)
    else:
        head, tags = ask(f"asking for the tags of {repo_id}", lambda api: list_refs(api, repo_id), retry=retry)
        place = find_place(
            repo_id,
            revision,
            what,
            head=head,
            tags=tags,
            list_at=lambda commit, folder: _list(repo_id, commit, folder, retry),
        )
        cache.write_note(note, place.as_json())
    if what == "checkpoint":
        logger.info("fetching %s of %s", place.folder, repo_id)
    return _bring(repo_id, place, wanted_files(place, what), retry)


def newest_step(repo_id: str) -> str | None:
    """The tag of the newest step of a repository; None when it has none, or there is no such repository."""
    try:
        _, tags = ask(f"asking for the tags of {repo_id}", lambda api: list_refs(api, repo_id))
    except HubError as error:
        if error.status in (401, 404):
            return None
        raise
    steps = steps_of(tags)
    return steps[-1] if steps else None


def on_this_node(path: Path, *, retry: RetryPolicy | None = None) -> Path:
    """The same folder on this machine: a folder that came from the Hub is fetched here too, any other is as it is."""
    found = _IN_CACHE.match(str(path))
    if found is None or (is_offline() and path.is_dir()):
        return path
    repo_id, inside = f"{found['owner']}/{found['name']}", str(path)[found.end() :].strip("/")
    place = _place_of_commit(repo_id, found["commit"], inside, retry)
    return _bring(repo_id, place, wanted_files(place, "policy" if not inside else "checkpoint"), retry)


def fetch_beside(checkpoint: Path, folder: str, *, retry: RetryPolicy | None = None) -> Path | None:
    """Another folder of the commit that a fetched checkpoint came from; None when there is none."""
    found = _IN_CACHE.match(str(checkpoint))
    if found is None:
        return None
    repo_id = f"{found['owner']}/{found['name']}"
    place = _place_of_commit(repo_id, found["commit"], folder, retry)
    return _bring(repo_id, place, list(place.files), retry) if place.files else None


def is_from_hub(path: Path) -> bool:
    """Whether a folder is in the cache of the Hub's client."""
    return _IN_CACHE.match(str(path)) is not None


def _place_of_commit(repo_id: str, commit: str, folder: str, retry: RetryPolicy | None) -> Place:
    """A folder of a commit; its listing is asked for once per node."""
    note = f"hub-models--{repo_id.replace('/', '--')}/trees/{commit}-{quote(folder or 'root', safe='')}"

    def ask_for_it() -> bytes:
        return Place(commit, folder, _list(repo_id, commit, folder, retry)).as_json()

    return Place.from_json(FileCache().note(note, ask_for_it))


def _list(repo_id: str, commit: str, folder: str, retry: RetryPolicy | None) -> dict[str, Entry]:
    return ask(f"listing {repo_id}", lambda api: list_files(api, repo_id, revision=commit, folder=folder), retry=retry)


def _bring(repo_id: str, place: Place, paths: Iterable[str], retry: RetryPolicy | None) -> Path:
    """Every file on this disk and as the Hub lists it; the folder of the place."""
    paths = sorted(paths, key=lambda path: (not path.endswith(MANIFEST_NAME), path))  # it tells of the others early
    _check_room(repo_id, place, paths)
    root = None
    for path in paths:
        local = _one_file(repo_id, place.commit, path, place.files[path], retry)
        root = local.parents[path.count("/")]
        if path == f"{place.folder}/{MANIFEST_NAME}":
            _check_manifest(repo_id, local, place)
    if root is None:
        raise HubError(f"{repo_id} holds nothing at {place.folder or 'its root'} (commit {place.commit[:8]}).")
    return root / place.folder


def _one_file(repo_id: str, commit: str, path: str, entry: Entry, retry: RetryPolicy | None) -> Path:
    def download(api: Any) -> Path:
        return Path(api.hf_hub_download(repo_id, path, revision=commit, local_files_only=is_offline()))

    for _ in range(2):  # once more after a transfer that went wrong without a sign
        try:
            local = ask(f"fetching {path} of {repo_id}", download, retry=retry)
        except HubError:
            raise
        except OSError as error:
            raise HubError(
                f"{path} of {repo_id} cannot be stored: {error.strerror or error}. Free space on the disk of the Hub's "
                "cache, or set HF_HOME to a folder elsewhere. What is there already is kept."
            ) from error
        if _is_good(local, entry):
            return local
        local.resolve().unlink(missing_ok=True)
        local.unlink(missing_ok=True)
    raise HubError(
        f"{path} of {repo_id} (commit {commit[:8]}) does not arrive as the Hub at {endpoint()} lists it: its digest is "
        "another one, twice. Try again later, or take another step."
    )


def _is_good(local: Path, entry: Entry) -> bool:
    """Whether the file is the one listed. Read once per node, and again if it has changed since."""
    stat = local.stat()
    name = f"verified/{entry.digest}-{stat.st_size}-{stat.st_mtime_ns}"

    def read() -> bytes:
        if not is_same(local, entry):
            raise _Differs
        return b""

    try:
        FileCache().note(name, read)
    except _Differs:
        return False
    return True


class _Differs(Exception):
    """A file is not what was listed."""


def _check_manifest(repo_id: str, manifest: Path, place: Place) -> None:
    """HubError when the commit does not hold what was saved: a file that was cut short or replaced on the Hub."""
    try:
        saved: Mapping[str, Any] = json.loads(manifest.read_text())["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(f"{MANIFEST_NAME} of {repo_id} ({place.folder}) cannot be read: {error}.") from error
    for name, expected in saved.items():
        entry = place.files.get(f"{place.folder}/{name}")
        is_right = entry is not None and entry.size_bytes == expected["bytes"]
        if entry is not None and is_right and entry.is_large:
            is_right = entry.digest == expected["sha256"]
        if not is_right:
            raise HubError(
                f"{place.folder}/{name} of {repo_id} (commit {place.commit[:8]}) is not the file that was saved: "
                "missing, cut short or replaced on the Hub. Take another step with its tag."
            )


def _check_room(repo_id: str, place: Place, paths: list[str]) -> None:
    """HubError when what is still to come is more than the disk has free."""
    from huggingface_hub import constants, try_to_load_from_cache

    here = {path: try_to_load_from_cache(repo_id, path, revision=place.commit) for path in paths}
    missing = [path for path in paths if not isinstance(here[path], str)]
    needed = sum(place.files[path].size_bytes for path in missing)
    folder = Path(constants.HF_HUB_CACHE)
    there = next((part for part in (folder, *folder.parents) if part.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    if needed > free:
        raise HubError(
            f"{place.folder or repo_id} of {repo_id} takes {needed / _MB:,.0f} MB more, and {folder} has "
            f"{free / _MB:,.0f} MB free. Free space there, or set HF_HOME to a folder elsewhere."
        )


def _snapshot_here(repo_id: str, revision: str | None, what: Wanted) -> Path:
    """Offline: what an earlier download, LeRobot's for one, has left in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        root = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise HubError(
            f"{repo_id}{f' at {revision}' if revision else ''} is not on this machine, and HF_HUB_OFFLINE is set. Run "
            "once without it."
        ) from error
    steps = steps_of(path.name for path in (root / CHECKPOINTS_DIR).glob("*"))
    return root / CHECKPOINTS_DIR / steps[-1] if what == "checkpoint" and steps else root
