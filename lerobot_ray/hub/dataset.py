"""A dataset folder to the Hub: its files, its card, and last the tag of its format, which readers go by."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.core.layout import FORMAT_VERSION
from lerobot_ray.data.metadata import DatasetMetadata, check_files, open_metadata
from lerobot_ray.data.storage import LocalStorage
from lerobot_ray.hub.card import dataset_card
from lerobot_ray.hub.client import ask, check_can_push, url_of
from lerobot_ray.hub.content import is_same, list_files, list_refs
from lerobot_ray.hub.upload import Files, check_repo_id, ensure_repo, place_tag, remove_tag, send_commit

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"
OWN_FOLDERS = ("meta/", "data/", "videos/")
"""What a dataset of this format owns in its repository: a file there that is not here is of an earlier state."""
FILES_PER_COMMIT = 100
BYTES_PER_COMMIT = 20 * 10**9


def push_dataset(
    root: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    videos: bool = True,
    license: str = "apache-2.0",
    tags: tuple[str, ...] = (),
) -> str:
    """Push the dataset in folder `root` to `repo_id`; the address of its page.

    The repository is made if need be, `private` unless told otherwise; one that is there keeps what it is. What it has
    already is not sent again, so a push that was cut goes on where it stopped. The tag comes last: readers see the
    state before, or the whole new one. Not `videos`: tables and metadata only.
    """
    folder = Path(root).expanduser()
    check_repo_id(repo_id)
    check_can_push(f"dataset {repo_id}", "keep it where it is")
    metadata = _checked(folder, repo_id, videos=videos)
    is_new = ensure_repo(repo_id, private=private, repo_type="dataset")
    files: dict[str, Path | bytes] = dict(_files_of(folder, videos=videos))
    files.setdefault(CARD_NAME, dataset_card(metadata, license=license, tags=tags).encode())
    there = {} if is_new else ask(f"listing {repo_id}", lambda api: list_files(api, repo_id, repo_type="dataset"))
    changed = {path: content for path, content in files.items() if not is_same(content, there.get(path))}
    stale = [path for path in there if path not in files and path.startswith(OWN_FOLDERS)]
    if not videos:
        stale = [path for path in stale if not path.startswith("videos/")]
    logger.info("%s: %d of %d files to send", repo_id, len(changed), len(files))
    batches = list(_batches(changed))
    for number, batch in enumerate(batches, 1):
        part = f" (part {number} of {len(batches)})" if len(batches) > 1 else ""
        is_last = number == len(batches)
        send_commit(
            repo_id,
            batch,
            message=f"dataset {FORMAT_VERSION}{part}",
            delete=stale if is_last else (),
            repo_type="dataset",
        )
    if stale and not batches:
        send_commit(repo_id, {}, message="removed what the dataset no longer has", delete=stale, repo_type="dataset")
    _tag(repo_id)
    return url_of(repo_id, "dataset")


def _checked(folder: Path, repo_id: str, *, videos: bool) -> DatasetMetadata:
    """The dataset's metadata; DatasetError when the folder holds none, or not all of it."""
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder} to push. Give the one that holds meta/info.json.")
    metadata = open_metadata(repo_id, storage=LocalStorage(folder.absolute()))
    if videos:
        check_files(metadata)
    elif metadata.video_keys and not metadata.storage.glob("data/*/*.parquet"):
        raise DatasetError(f"{folder} holds no data files. Is it the whole dataset?")
    return metadata


def _files_of(folder: Path, *, videos: bool) -> Iterator[tuple[str, Path]]:
    """What belongs to the dataset: no hidden files, no frames kept as images for a recording under way."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_file() and not is_hidden and not name.startswith("images/"):
            if name.startswith("videos/") and not videos:
                continue
            yield name, path


def _batches(files: Files) -> Iterator[dict[str, Path | bytes]]:
    """In commits of a bearable size; the tables that name the other files come last."""
    batch: dict[str, Path | bytes] = {}
    num_bytes = 0
    for path in sorted(files, key=lambda path: (path.startswith("meta/"), path)):
        content = files[path]
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if batch and (len(batch) == FILES_PER_COMMIT or num_bytes + size > BYTES_PER_COMMIT):
            yield batch
            batch, num_bytes = {}, 0
        batch[path] = content
        num_bytes += size
    if batch:
        yield batch


def _tag(repo_id: str) -> None:
    """Let the tag of the format name main's head."""
    head, tags = ask(f"asking for the tags of {repo_id}", lambda api: list_refs(api, repo_id, repo_type="dataset"))
    if head is None:
        raise ConfigError(f"{repo_id} has no branch main. Make one, or push to another repository.")
    if tags.get(FORMAT_VERSION) == head:
        return
    if FORMAT_VERSION in tags:
        remove_tag(repo_id, FORMAT_VERSION, repo_type="dataset")
    place_tag(repo_id, FORMAT_VERSION, head, repo_type="dataset")
