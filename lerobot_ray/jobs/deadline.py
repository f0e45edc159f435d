"""A job's time limit, kept by the job itself: near its end the run is asked to stop, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import MutableMapping

STOP_AFTER_VARIABLE = "LEROBOT_RAY_STOP_AFTER_S"
TIMED_OUT = 124
"""Exit code of a run that its time limit ended, as of timeout(1)."""
GRACE_S = 600.0
"""From being asked to stop to being ended; a large checkpoint takes minutes."""


class Deadline:
    """Runs from construction on; `passed` says whether it was reached."""

    def __init__(self, seconds: float, *, grace_s: float = GRACE_S) -> None:
        self.passed = False
        self._grace_s = grace_s
        self._timer = threading.Timer(seconds, self._ask)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _ask(self) -> None:
        self.passed = True
        # To the main thread, whose waiting it ends: Python's handlers run nowhere else.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        self._timer = threading.Timer(self._grace_s, os._exit, args=(TIMED_OUT,))
        self._timer.daemon = True
        self._timer.start()


def deadline_of_job(environment: MutableMapping[str, str]) -> Deadline | None:
    """The limit this process was started with, if any. Taken out of the environment: it concerns this process alone.

    Until the run listens to signals itself it has nothing to save, and ends at once.
    """
    seconds = environment.pop(STOP_AFTER_VARIABLE, None)
    if not seconds:
        return None
    deadline = Deadline(float(seconds))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(TIMED_OUT if deadline.passed else 128 + number))
    return deadline
