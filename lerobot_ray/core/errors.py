"""The error tree: what a user or a file can cause. Every message says what was wrong, where, and what to do.

    LerobotRayError
    ├── ConfigError          a flag, a config file, a combination of both            (also a ValueError)
    ├── DatasetError         metadata, tables, statistics, an empty selection        (also a ValueError)
    │   ├── VersionError     the dataset is of a format version this package does not read
    │   └── FrameError       one frame of one camera cannot be had: missing, truncated, off the time grid
    ├── StorageError         a file cannot be fetched or written                     (also an OSError)
    ├── StreamError          the data stream has a gap or a repeat; never a user's fault, never ignored
    ├── PolicyError          features, weights or options a policy cannot use        (also a ValueError)
    ├── ProcessorError       a processing pipeline that cannot be built or applied   (also a ValueError)
    ├── CheckpointError      a checkpoint that is not whole, or of another run       (also a ValueError)
    ├── EnvError             an environment that cannot be built or does not fit a policy (also a ValueError)
    └── JobError             a job that cannot be submitted, watched or stopped

Errors cross processes, so each is rebuilt from the arguments of its own `__init__` (a test pickles them all).
"""

from __future__ import annotations

from collections.abc import Iterable


class LerobotRayError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(LerobotRayError, ValueError):
    """A flag, a config file, or a combination of settings that cannot be used."""


class DatasetError(LerobotRayError, ValueError):
    """A dataset that cannot be used as asked."""


class VersionError(DatasetError):
    """A dataset of a format version this package does not read."""


class FrameError(DatasetError):
    """One frame of one camera cannot be had. Carries the episode, so that the caller may drop it."""

    def __init__(self, reason: str, *, file: str = "", camera: str = "", episode: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.file, self.camera, self.episode = reason, file, camera, episode

    def __reduce__(self):  # keyword arguments do not survive the default, which calls cls(*args)
        return _rebuild_frame_error, (self.reason, self.file, self.camera, self.episode)

    def __str__(self) -> str:
        where = [f"episode {self.episode}" if self.episode is not None else "", self.camera, self.file]
        where = [part for part in where if part]
        return f"{', '.join(where)}: {self.reason}" if where else self.reason


def _rebuild_frame_error(reason: str, file: str, camera: str, episode: int | None) -> FrameError:
    return FrameError(reason, file=file, camera=camera, episode=episode)


class StorageError(LerobotRayError, OSError):
    """A file that cannot be fetched or written."""


class StreamError(LerobotRayError):
    """The data stream has a gap or a repeat."""


class PolicyError(LerobotRayError, ValueError):
    """Features, weights or options that a policy cannot use."""


class ProcessorError(LerobotRayError, ValueError):
    """A processing pipeline that cannot be built, loaded or applied."""


class CheckpointError(LerobotRayError, ValueError):
    """A checkpoint that is not whole, or belongs to another run."""


class EnvError(LerobotRayError, ValueError):
    """An environment that cannot be built, or does not fit the policy that shall act in it."""


class JobError(LerobotRayError):
    """A job that cannot be submitted, watched or stopped."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None: for messages that end in "did you mean …?"."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
