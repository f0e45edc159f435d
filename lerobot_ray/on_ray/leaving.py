"""Whether this training process was told to go (SIGTERM): its node is preempted, or its job is over.

Ray's own answer to SIGTERM is to end at once. Here it is noted down, and the ranks save together at the next step
boundary. The second one ends the process, as it always did.

A signal handler can only be set in a process's main thread, and Ray Train trains in another. The main thread serves the
actor's calls, so the handler is set by one (`RayTrainWorker.execute`, which is Ray Train's own; look at it again before
Ray is updated, `tests/on_ray/test_faults.py` fails without it).
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import ray

from lerobot_ray.core.errors import LerobotRayError

logger = logging.getLogger(__name__)

_told = threading.Event()


class WorkerLeaves(LerobotRayError):
    """A training process was told to go. Everything is saved; the workers start again, without it if need be."""

    def __init__(self, rank: int, step: int) -> None:
        super().__init__(rank, step)
        self.rank, self.step = rank, step

    def __str__(self) -> str:
        return f"rank {self.rank} was told to go (SIGTERM) after step {self.step}, which is saved"


def is_told_to_leave() -> bool:
    return _told.is_set()


def listen() -> None:
    """From inside Ray Train's training thread: note SIGTERM down from now on."""
    _told.clear()
    actor: Any = ray.get_runtime_context().current_actor
    try:
        ray.get(actor.execute.remote(_set_handler))
    except (AttributeError, ray.exceptions.RayError) as error:  # not worth a run
        logger.warning("a training process that is told to go will not save first: %s", error)


def _set_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        _told.set()

    signal.signal(signal.SIGTERM, note)
