"""A dataset repository on the Hub, as a `Storage`: one commit, read file by file.

A revision is resolved to a commit id once, when the storage is opened; from then on every process reads that commit,
whatever happens to the branch. Files are checked against the digest the Hub lists for them. Snapshots that LeRobot left
in `$HF_LEROBOT_HOME/hub` are read where they are and never written to.

The bytes come over plain HTTP through the client's own session (so proxies and certificates set up for
`huggingface_hub` hold here too), one GET per file, continued where it broke off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lerobot_ray.core.errors import StorageError
from lerobot_ray.core.layout import FORMAT_VERSION
from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.hub_failures import PASSING_STATUSES, passing_failures
from lerobot_ray.data.hub_revision import choose_commit, is_commit_id
from lerobot_ray.data.remote_files import CHUNK_BYTES, RemoteFile, RemoteStorage, Sink
from lerobot_ray.data.retry import RetryPolicy, TransientError, asked_wait_s, call_with_retries
from lerobot_ray.data.storage import lerobot_home

_TRUE = {"1", "ON", "YES", "TRUE"}
_TIMEOUT_S = 60.0


class HubStorage(RemoteStorage):
    """`repo_id` at `revision` (a branch, a tag, a commit id; by default the tag of the format version)."""

    def __init__(
        self,
        repo_id: str,
        revision: str | None = None,
        *,
        cache: FileCache | None = None,
        retry: RetryPolicy | None = None,
        look_ahead_parallel: int = 4,
    ) -> None:
        super().__init__(cache=cache, retry=retry, look_ahead_parallel=look_ahead_parallel)
        self.repo_id, self.revision = repo_id, revision or FORMAT_VERSION
        self._endpoint = _endpoint()
        self.commit = self._resolve()

    def identity(self) -> str:
        return f"{self.repo_id}@{self.commit}"

    def __str__(self) -> str:
        return f"{self.repo_id} (revision {self.revision})"

    # RemoteStorage

    def _list(self) -> Mapping[str, RemoteFile]:
        name = f"{self._folder()}/{self.commit}.json"
        if is_offline():
            rows = self.cache.read_note(name)
            return _from_note(rows) if rows is not None else self._snapshot_files()
        return _from_note(self.cache.note(name, self._ask_for_listing))

    def _download(self, path: str, file: RemoteFile, sink: Sink) -> None:
        from huggingface_hub import hf_hub_url

        if is_offline():
            raise StorageError(
                f"{self}: {path} is not on this machine and HF_HUB_OFFLINE is set. Run once without it, or copy the "
                f"dataset to {lerobot_home() / self.repo_id}."
            )
        url = hf_hub_url(self.repo_id, path, repo_type="dataset", revision=self.commit, endpoint=self.endpoint)
        headers = {"Accept-Encoding": "identity", "User-Agent": "lerobot_ray"}
        if token := _token():
            headers["Authorization"] = f"Bearer {token}"
        if sink.position:
            headers["Range"] = f"bytes={sink.position}-"
        with self._explained(path), _stream(url, headers) as (status, answer_headers, chunks):
            if status == 416:
                sink.truncate()
                raise TransientError("the part that was here does not fit the file")
            if status in PASSING_STATUSES:
                raise TransientError(f"the Hub answers {status}", asked_wait_s(answer_headers))
            if status not in (200, 206):
                raise self._refused(status, answer_headers.get("X-Error-Code", ""), path)
            if status == 200 and sink.position:
                sink.truncate()
            for chunk in chunks:
                sink.write(chunk)

    def _verify(self, path: str, file: RemoteFile, content: FileIO) -> str:
        kind, _, expected = file.content.partition("-")
        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % file.size_bytes)
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
        return "" if digest.hexdigest() == expected else f"its {kind} digest is not the one the Hub lists"

    def _folder(self) -> str:
        return "hub--" + self.repo_id.replace("/", "--")

    def _already_here(self, path: str) -> Path | None:
        here = self._snapshot() / path
        return here if here.is_file() else None

    # The Hub

    @property
    def endpoint(self) -> str:
        """The Hub's address: of this process's environment, otherwise of the one that opened the storage."""
        return os.environ.get("HF_ENDPOINT", "").rstrip("/") or self._endpoint

    def _resolve(self) -> str:
        """The commit the revision means, asked for once."""
        if is_commit_id(self.revision):
            return self.revision
        note = f"{self._folder()}/refs/{quote(self.revision, safe='')}"
        if is_offline():
            known = self.cache.read_note(note) or self._snapshot_ref()
            if known is None:
                raise StorageError(
                    f"{self.repo_id} is not on this machine at revision {self.revision} and HF_HUB_OFFLINE is set. "
                    f"Run once without it, or copy the dataset to {lerobot_home() / self.repo_id}."
                )
            return known.decode().strip()
        refs = self._ask("its branches and tags", lambda api: api.list_repo_refs(self.repo_id, repo_type="dataset"))
        branches = {ref.name: ref.target_commit for ref in refs.branches}
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        commit = choose_commit(self.repo_id, self.revision, branches=branches, tags=tags)
        self.cache.write_note(note, commit.encode())
        return commit

    def _ask_for_listing(self) -> bytes:
        list_tree = partial(_list_tree, repo_id=self.repo_id, commit=self.commit)
        rows = self._ask("its list of files", list_tree)
        return json.dumps(rows).encode()

    def _ask(self, what: str, question: Any) -> Any:
        """An API call, with retries and with errors that say what to do."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=_token() or False, library_name="lerobot_ray")

        def attempt() -> Any:
            with self._explained(what):
                return question(api)

        try:
            return call_with_retries(attempt, what=f"{self}: {what}", policy=self.retry)
        except TransientError as error:
            raise StorageError(
                f"{self.repo_id}: the Hub at {self.endpoint} does not give {what}: {error}. Check the connection, or "
                f"set HF_HUB_OFFLINE=1 to use what is on this machine."
            ) from error

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what the client raises into TransientError or a StorageError with a remedy."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            with passing_failures():
                yield
        except OfflineModeIsEnabled as error:
            raise StorageError(
                f"{self}: {what} is needed, but huggingface_hub was imported with HF_HUB_OFFLINE set. Start again "
                f"without it."
            ) from error
        except HfHubHTTPError as error:
            raise self._refused(
                error.response.status_code, error.response.headers.get("X-Error-Code", ""), what
            ) from error

    def _refused(self, status: int, code: str, what: str) -> StorageError:
        where = f"{self.repo_id} (revision {self.revision}) on {self.endpoint}"
        page = f"{self.endpoint}/datasets/{self.repo_id}"
        has_token = _token() is not None
        if code == "GatedRepo":
            remedy = f"The dataset is gated: accept its terms at {page}"
            remedy += "." if has_token else " and set HF_TOKEN."
        elif code == "RevisionNotFound":
            remedy = "There is no such revision. It may have been deleted since; name another one."
        elif code == "EntryNotFound":
            remedy = "The repository has no such file at this revision."
        elif status in (401, 403) and not code and has_token:
            remedy = "The token in HF_TOKEN (or from `hf auth login`) is not accepted. Make a new one."
        elif has_token:
            remedy = "There is no such dataset, or it is private and the token in use has no access to it."
        else:
            remedy = "There is no such dataset, or it is private and no token is set: set HF_TOKEN or `hf auth login`."
        return StorageError(f"{where}: {what} cannot be had, the Hub answers {status}. {remedy}")

    # Snapshots that LeRobot left

    def _repo_cache(self) -> Path:
        return lerobot_home() / "hub" / ("datasets--" + self.repo_id.replace("/", "--"))

    def _snapshot(self) -> Path:
        return self._repo_cache() / "snapshots" / self.commit

    def _snapshot_ref(self) -> bytes | None:
        ref = self._repo_cache() / "refs" / self.revision
        return ref.read_bytes() if ref.is_file() else None

    def _snapshot_files(self) -> Mapping[str, RemoteFile]:
        """Offline and without a listing: what the snapshot holds."""
        snapshot = self._snapshot()
        files = {
            path.relative_to(snapshot).as_posix(): RemoteFile(path.stat().st_size, "snapshot")
            for path in snapshot.rglob("*")
            if path.is_file()
        }
        if not files:
            raise StorageError(
                f"{self} is not on this machine and HF_HUB_OFFLINE is set. Run once without it, or copy the dataset "
                f"to {lerobot_home() / self.repo_id}."
            )
        return files


def is_offline() -> bool:
    """HF_HUB_OFFLINE, read now: the client reads it when it is imported."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _list_tree(api: Any, *, repo_id: str, commit: str) -> dict[str, list[Any]]:
    rows = {}
    for entry in api.list_repo_tree(repo_id, repo_type="dataset", revision=commit, recursive=True):
        if hasattr(entry, "blob_id"):  # a file; folders have none
            content = f"sha256-{entry.lfs.sha256}" if entry.lfs else f"git-{entry.blob_id}"
            rows[entry.path] = [entry.size, content]
    return rows


def _from_note(text: bytes) -> dict[str, RemoteFile]:
    return {path: RemoteFile(size, content) for path, (size, content) in json.loads(text).items()}


@contextmanager
def _stream(url: str, headers: dict[str, str]) -> Iterator[tuple[int, Mapping[str, str], Iterator[bytes]]]:
    """A GET as (status, headers, chunks), through whichever HTTP library the installed client uses."""
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    if callable(getattr(session, "stream", None)):  # httpx, httpx2: huggingface_hub 1 and later
        with session.stream("GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True) as answer:
            # As they arrive: with a chunk size, what was received before a cut would be lost in its buffer.
            yield answer.status_code, answer.headers, answer.iter_raw()
    else:  # requests
        with session.get(url, headers=headers, timeout=_TIMEOUT_S, stream=True) as answer:
            yield answer.status_code, answer.headers, answer.iter_content(1 << 16)
