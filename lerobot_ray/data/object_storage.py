"""A dataset below a URL, as a `Storage`: S3 and GCS through pyarrow, anything else through fsspec.

Keys and other secrets come from the environment of the process that reads (AWS_ACCESS_KEY_ID, instance roles, …); a URL
that carries them is refused, because the storage travels to other machines and its name into logs. The listing is
made once, when the dataset is opened, and travels along: every process reads the same files, and an object that is
replaced during a run is an error, not a surprise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from io import FileIO
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.remote_files import RemoteFile, RemoteStorage, Sink
from lerobot_ray.data.retry import RetryPolicy, TransientError, call_with_retries

_READ_BYTES = 16 << 20
"""One request each: pyarrow reads an object store in ranges of what it is asked for."""
_GIVE_UP_S = 20
"""How long one request may stand still."""
ARROW_SCHEMES = {"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file"}
_SECRET_WORDS = ("key", "secret", "token", "password", "signature", "credential")
_FINAL_WORDS = (
    "ACCESS_DENIED",
    "AccessDenied",
    "INVALID_ACCESS_KEY_ID",
    "InvalidAccessKeyId",
    "SIGNATURE_DOES_NOT_MATCH",
    "SignatureDoesNotMatch",
    "NO_SUCH_BUCKET",
    "NoSuchBucket",
    "UNRECOGNIZED_CLIENT",
)
_GONE_WORDS = ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND")


class ObjectStorage(RemoteStorage):
    """The dataset below `url`, for example `s3://bucket/datasets/pick` or `gs://bucket/pick`.

    A private S3 endpoint is `AWS_ENDPOINT_URL` in the environment, or `?endpoint_override=host:port&scheme=http` at
    the end of the URL.
    """

    def __init__(
        self,
        url: str,
        *,
        cache: FileCache | None = None,
        retry: RetryPolicy | None = None,
        look_ahead_parallel: int = 4,
    ) -> None:
        super().__init__(cache=cache, retry=retry, look_ahead_parallel=look_ahead_parallel)
        refuse_secrets(url)
        self.url = url.rstrip("/")
        self._client: _Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_client": None}

    def identity(self) -> str:
        return self.url

    # RemoteStorage

    def _list(self) -> Mapping[str, RemoteFile]:
        def attempt() -> Mapping[str, RemoteFile]:
            with self._explained("the list of its files"):
                try:
                    rows = self._fs().files()
                except FileNotFoundError:
                    rows = []
                return {path: RemoteFile(size, _content(path, mark)) for path, size, mark in rows}

        try:
            files = call_with_retries(attempt, what=f"{self.url}: listing", policy=self.retry)
        except TransientError as error:
            raise StorageError(f"{self.url} cannot be listed: {error}. Check the connection and run again.") from error
        if not files:
            raise StorageError(f"There is nothing below {self.url}. Check the path and the rights of this account.")
        return files

    def _download(self, path: str, file: RemoteFile, sink: Sink) -> None:
        sink.truncate()  # without a digest nobody can tell whether the beginning still belongs to the end
        with self._explained(path):
            size, mark = self._fs().describe(path)
            if (size, _content(path, mark)) != (file.size_bytes, file.content):
                raise StorageError(
                    f"{self.url}: {path} has been replaced since the run began. Datasets must not change while they "
                    f"are read; start again to use the new one."
                )
            with self._fs().open(path) as stream:
                while chunk := stream.read(_READ_BYTES):
                    sink.write(chunk)

    def _verify(self, path: str, file: RemoteFile, content: FileIO) -> str:
        return ""  # object stores check their own transfers; the size was compared

    def _folder(self) -> str:
        split = urlsplit(self.url)
        return f"{split.scheme}--{split.netloc}--{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"

    def _travelling_listing(self) -> Mapping[str, RemoteFile] | None:
        return self._files

    # The store

    def _fs(self) -> _Client:
        if self._client is None:
            try:
                is_arrow = urlsplit(self.url).scheme in ARROW_SCHEMES
                self._client = _ArrowClient(self.url) if is_arrow else _FsspecClient(self.url)
            except NotImplementedError:  # a pyarrow built without this store
                self._client = _FsspecClient(self.url)
        return self._client

    def _explained(self, what: str) -> Any:
        return explained(self.url, what, gone=self._gone(what))

    def _gone(self, what: str) -> StorageError:
        return StorageError(
            f"{self.url}: {what} was there when the run began and is gone. Datasets must not change while they are "
            f"read; restore it, or start again."
        )


_REMEDY = (
    "Check the URL, the credentials in this machine's environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, an instance role; "
    "GOOGLE_APPLICATION_CREDENTIALS), and AWS_ENDPOINT_URL if the store is your own."
)


@contextmanager
def explained(url: str, what: str, *, gone: StorageError) -> Iterator[None]:
    """Turn what a client raises into TransientError, or a StorageError with a remedy; `gone` where there is no file."""
    try:
        yield
    except (StorageError, TransientError):
        raise
    except FileNotFoundError as error:
        raise gone from error
    except (PermissionError, NotImplementedError, ImportError, ValueError) as error:
        raise StorageError(f"{url}: no access to {what}: {error}. {_REMEDY}") from error
    except OSError as error:
        if any(word in str(error) for word in _GONE_WORDS):
            raise gone from error
        if any(word in str(error) for word in _FINAL_WORDS):
            raise StorageError(f"{url}: no access to {what}: {error}. {_REMEDY}") from error
        raise TransientError(str(error) or type(error).__name__) from error


class _Client(Protocol):
    """What is needed of a store. Paths are relative to the URL."""

    def files(self) -> list[tuple[str, int, str]]:
        """(path, size, a mark that changes with the content) of everything below the URL."""
        ...

    def describe(self, path: str) -> tuple[int, str]: ...

    def open(self, path: str) -> Any: ...


class _ArrowClient:
    def __init__(self, url: str) -> None:
        self._fs, self._base = arrow_filesystem(url)

    def files(self) -> list[tuple[str, int, str]]:
        from pyarrow import fs

        infos = self._fs.get_file_info(fs.FileSelector(self._base, recursive=True))
        rows = [(info.path[len(self._base) :].lstrip("/"), info) for info in infos if info.is_file]
        return [(path, info.size, _arrow_mark(info)) for path, info in rows]

    def describe(self, path: str) -> tuple[int, str]:
        info = self._fs.get_file_info(f"{self._base}/{path}")
        if not info.is_file:
            raise FileNotFoundError(path)
        return info.size, _arrow_mark(info)

    def open(self, path: str) -> Any:
        return self._fs.open_input_stream(f"{self._base}/{path}")


def arrow_filesystem(url: str) -> tuple[Any, str]:
    """(a pyarrow file system, the path in it) of a URL. NotImplementedError: this pyarrow was built without it."""
    from pyarrow import fs

    if urlsplit(url).scheme in ("gs", "gcs") and "retry_limit_seconds" not in url:
        url += ("&" if "?" in url else "?") + f"retry_limit_seconds={_GIVE_UP_S}"
    system, base = fs.FileSystem.from_uri(url)
    if isinstance(system, fs.S3FileSystem):
        system = _patient_s3(system.region, parse_qs(urlsplit(url).query))
    return system, base.rstrip("/")


def _patient_s3(region: str, query: Mapping[str, list[str]]) -> Any:
    """The client of an s3:// URL with our own retries on top, and not a hundred seconds of its own below them."""
    from pyarrow import fs

    options: dict[str, Any] = {name: query[name][0] for name in ("endpoint_override", "scheme") if name in query}
    own_store = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if own_store and "endpoint_override" not in options:
        scheme, _, address = own_store.rpartition("://")
        options |= {"endpoint_override": address.rstrip("/"), "scheme": scheme or "https"}
    if "force_virtual_addressing" in query:
        options["force_virtual_addressing"] = query["force_virtual_addressing"][0].lower() in ("true", "1")
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=2)
    options |= {"connect_timeout": _GIVE_UP_S / 2, "request_timeout": _GIVE_UP_S, "retry_strategy": retries}
    return fs.S3FileSystem(region=region, **options)


def _arrow_mark(info: Any) -> str:
    return str(info.mtime_ns // 1_000_000_000)  # S3 lists milliseconds but answers about one object in seconds


class _FsspecClient:
    def __init__(self, url: str) -> None:
        import fsspec

        self._fs, base = fsspec.core.url_to_fs(url)
        self._base = base.rstrip("/")

    def files(self) -> list[tuple[str, int, str]]:
        rows = self._fs.find(self._base, detail=True)
        prefix = len(self._base)
        # Web servers list names alone.
        infos = {name: self._fs.info(name) if info.get("size") is None else info for name, info in rows.items()}
        return [(name[prefix:].lstrip("/"), info["size"], _mark(info)) for name, info in infos.items()]

    def describe(self, path: str) -> tuple[int, str]:
        self._fs.invalidate_cache()
        info = self._fs.info(f"{self._base}/{path}")
        return info["size"], _mark(info)

    def open(self, path: str) -> Any:
        return self._fs.open(f"{self._base}/{path}", "rb")


def _mark(info: Mapping[str, Any]) -> str:
    known = ("ETag", "etag", "sha256", "md5", "mtime", "LastModified", "last_modified", "created")
    values = [info[name] for name in known if info.get(name)]
    # Listings and single answers differ in the type of a time and in its fraction of a second.
    times = [value.timestamp() if isinstance(value, datetime) else value for value in values]
    return "/".join(str(int(value)) if isinstance(value, float) else str(value) for value in times)


def _content(path: str, mark: str) -> str:
    """A file name for these bytes: of the place and the store's mark, since stores list no digest of the content."""
    return hashlib.sha256(f"{path}\n{mark}".encode()).hexdigest()[:40]


def refuse_secrets(url: str) -> None:
    split = urlsplit(url)
    words = [name for name in parse_qs(split.query) if any(word in name.lower() for word in _SECRET_WORDS)]
    is_nobody = split.username == "anonymous" and split.scheme in ("gs", "gcs")  # pyarrow's word for public buckets
    if split.password or (split.username and not is_nobody and split.scheme in ("s3", "gs", "gcs")) or words:
        raise ConfigError(
            f"The URL {split.scheme}://{split.hostname}{split.path} carries credentials, and URLs end up in logs and "
            f"checkpoints. Take them out and set them in the environment of every machine (AWS_ACCESS_KEY_ID, "
            f"AWS_SECRET_ACCESS_KEY, AWS_PROFILE, …)."
        )
