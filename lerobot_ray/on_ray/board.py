"""The notice board between a run's driver and its workers: progress and log lines one way, the other way results of
evaluations and a request to stop.

An actor without CPUs, polled by the driver. Workers post and do not wait, so that nothing on the driver's side can
slow training. It outlives the workers, and so remembers across their restarts what no restart can mend.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lerobot_ray.on_ray.pulse import Beat
from lerobot_ray.on_ray.standstill import Signs

MAX_NOTES = 10_000


class Board:
    """The actor itself. Start it with `start_board`."""

    def __init__(self) -> None:
        self._notes: deque[tuple[str, Any]] = deque(maxlen=MAX_NOTES)
        self._results: list[Any] = []
        self._stop = ""
        self._fatal: BaseException | None = None
        self._signs = Signs()
        self._token: str | None = None

    def keep_token(self, token: str) -> None:
        """The Hub's token, for the processes of this run and for nobody else."""
        self._token = token

    def token(self) -> str | None:
        return self._token

    def post(self, kind: str, value: Any) -> None:
        self._notes.append((kind, value))

    def take(self) -> list[tuple[str, Any]]:
        """What was posted since the last call, and which rank the others wait for, if they do."""
        if text := self._signs.standstill():
            self._notes.append(("log", (logging.WARNING, text)))
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def beat(self, beat: Beat) -> None:
        """A rank's sign of life."""
        self._signs.add(beat)

    def deliver(self, result: Any) -> None:
        """The driver has the result of an evaluation, for rank 0's trackers."""
        self._results.append(result)

    def delivered(self) -> list[Any]:
        """Results since the last call."""
        results, self._results = self._results, []
        return results

    def request_stop(self, reason: str) -> None:
        self._stop = reason

    def stop_requested(self) -> str:
        return self._stop

    def fail(self, error: BaseException) -> None:
        """Remember an error that would only come again. The first counts."""
        self._fatal = self._fatal or error

    def fatal(self) -> BaseException | None:
        return self._fatal


def start_board(kind: type[Board] = Board) -> Any:
    """The board of one run; it lives as long as the driver, on the driver's node: others may be lost."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=here)(kind).remote()


class BoardHandler(logging.Handler):
    """Log records of a worker, posted."""

    def __init__(self, board: Any, rank: int) -> None:
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self._board, self._rank = board, rank

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if self._rank and not text.startswith("rank "):
                text = f"rank {self._rank}: {text}"
            self._board.post.remote("log", (record.levelno, text))
        except Exception:  # a log line is not worth a run
            self.handleError(record)


@contextmanager
def logging_to(board: Any, rank: int) -> Iterator[None]:
    """Within the block the package's log lines reach the driver. Rank 0 speaks for all, the others warn only."""
    package = logging.getLogger("lerobot_ray")
    handler, level = BoardHandler(board, rank), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
