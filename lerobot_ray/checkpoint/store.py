"""The folder of a run in an object store: a few calls, tried again, with errors that say what to do."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from lerobot_ray.core.errors import StorageError
from lerobot_ray.data.object_storage import ARROW_SCHEMES, arrow_filesystem, explained, refuse_secrets
from lerobot_ray.data.retry import RetryPolicy, TransientError, call_with_retries

T = TypeVar("T")
_CHUNK_BYTES = 8 << 20
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_PROBE = ".probe"
USUAL = RetryPolicy(attempts=4)


@dataclass(frozen=True)
class RunStore:
    """Files below a URL: s3://, gs://, or what fsspec knows. Paths are relative, with "/". Picklable and without keys:
    those come from each process's environment.

    A file is there whole or not at all: stores show an object when its last byte has come, elsewhere it is renamed.
    """

    address: str
    """With the options of a store of one's own: s3://bucket/run?endpoint_override=10.0.0.5:9000&scheme=http."""
    retry: RetryPolicy = USUAL
    check: Callable[[], None] = lambda: None
    """Asked while waiting to try again; what it raises ends the wait."""
    _opened: list[tuple[Any, str]] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        refuse_secrets(self.address)

    def __reduce__(self) -> Any:
        return RunStore, (self.address, self.retry)

    @property
    def url(self) -> str:
        """For people: without options."""
        return self.address.partition("?")[0]

    def patient(self, retry: RetryPolicy, check: Callable[[], None]) -> RunStore:
        """The same files, with more time."""
        return dataclasses.replace(self, retry=retry, check=check)

    def files(self, below: str = "") -> dict[str, int]:
        """Path -> bytes of all there is."""
        from pyarrow import fs

        def attempt(system: Any, base: str) -> dict[str, int]:
            where = f"{base}/{below}".rstrip("/")
            found = system.get_file_info(fs.FileSelector(where, allow_not_found=True, recursive=True))
            return {info.path[len(base) :].lstrip("/"): info.size for info in found if info.is_file}

        return self._call(attempt, f"the list of {below or 'its files'}")

    def read(self, path: str) -> bytes:
        def attempt(system: Any, base: str) -> bytes:
            with system.open_input_stream(f"{base}/{path}") as stream:
                return stream.read()

        return self._call(attempt, path)

    def get(self, path: str, into: Path) -> None:
        """Copy a file here; `into` may hold a part of it after an error."""

        def attempt(system: Any, base: str) -> None:
            into.parent.mkdir(parents=True, exist_ok=True)
            try:
                with system.open_input_stream(f"{base}/{path}") as stream, into.open("wb") as file:
                    while chunk := stream.read(_CHUNK_BYTES):
                        file.write(chunk)
            except OSError as error:
                if error.errno in _DISK_IS_FULL:  # this machine's, which trying again does not mend
                    raise StorageError(f"{into} cannot be written: {error.strerror}. Free some space there.") from error
                raise

        self._call(attempt, path)

    def put(self, source: Path | bytes, path: str) -> None:
        """Copy a file there, or some bytes."""

        def attempt(system: Any, base: str) -> None:
            with _writing(system, f"{base}/{path}") as stream:
                if isinstance(source, bytes):
                    stream.write(source)
                    return
                with source.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        stream.write(chunk)

        self._call(attempt, path)

    def remove(self, path: str) -> None:
        """The file is gone afterwards, whether or not it was there."""

        def attempt(system: Any, base: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                system.delete_file(f"{base}/{path}")

        self._call(attempt, path)

    def probe(self) -> None:
        """StorageError unless this process may list, write, read and delete there."""
        self.files()
        self.put(b"probe", _PROBE)
        if self.read(_PROBE) != b"probe":
            raise StorageError(f"{self.url} does not give back what is written to it.")
        self.remove(_PROBE)

    def _call(self, attempt: Callable[[Any, str], T], what: str) -> T:
        gone = StorageError(f"{self.url}: {what} is not there.")

        def once() -> T:
            with explained(self.url, what, gone=gone):
                if not self._opened:
                    self._opened.append(_open(self.address))
                return attempt(*self._opened[0])

        try:
            return call_with_retries(once, what=f"{self.url}: {what}", policy=self.retry, check=self.check)
        except TransientError as error:
            raise StorageError(f"{self.url}: {what}: {error}. Check the connection.") from error


def below(address: str, path: str) -> str:
    """The address of a folder in another one's."""
    split = urlsplit(address)
    return urlunsplit(split._replace(path=f"{split.path.rstrip('/')}/{path}"))


def _open(address: str) -> tuple[Any, str]:
    from pyarrow import fs

    if urlsplit(address).scheme in ARROW_SCHEMES:
        with contextlib.suppress(NotImplementedError):
            return arrow_filesystem(address)
    import fsspec

    system, base = fsspec.core.url_to_fs(address)
    return fs.PyFileSystem(fs.FSSpecHandler(system)), base.rstrip("/")


@contextlib.contextmanager
def _writing(system: Any, path: str) -> Iterator[Any]:
    """A stream whose content is at `path` when the block has ended, and not before."""
    if system.type_name in ("s3", "gcs", "abfs"):
        with system.open_output_stream(path) as stream:
            yield stream
        return
    folder, _, name = path.rpartition("/")
    system.create_dir(folder, recursive=True)
    beside = f"{folder}/.{name}.part"
    with system.open_output_stream(beside) as stream:
        yield stream
    system.move(beside, path)
