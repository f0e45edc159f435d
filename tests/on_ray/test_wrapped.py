"""What a run is told of an error that Ray brings: ours, not Ray's words around it."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError

from lerobot_ray.core.errors import ConfigError, DatasetError, FrameError, StreamError
from lerobot_ray.on_ray.wrapped import own_error


def from_a_task(error: Exception) -> Exception:
    """As `ray.get` raises what a task has raised: an instance of Ray's class and of the error's."""
    return RayTaskError("decode", "Traceback: many lines", error).as_instanceof_cause()


def because_of(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (DatasetError("a"), DatasetError),
        (from_a_task(DatasetError("a")), DatasetError),
        (from_a_task(from_a_task(DatasetError("a"))), DatasetError),
        (WorkerGroupError("two ranks", {0: ValueError("peer lost"), 1: DatasetError("a")}), DatasetError),
        (WorkerGroupError("one rank", {1: from_a_task(StreamError("a"))}), StreamError),
        (ControllerError(from_a_task(ConfigError("a"))), ConfigError),
        (because_of(RuntimeError("while reading"), DatasetError("a")), DatasetError),
        (because_of(StreamError("a"), FrameError("inner")), StreamError),
        (because_of(RuntimeError("a"), ValueError("b")), None),
        (WorkerGroupError("one rank", {0: ValueError("a")}), None),
    ],
)
def test_our_own_error_is_found(error, wanted):
    found = own_error(error)
    assert type(found) is (wanted or type(None))
    if wanted:
        assert str(found) == "a"
