"""A rank's sign of life: what it is doing and since when, told to the board by a thread of its own.

A rank that stands still in a collective cannot say so itself, and cannot know which other rank it waits for. From the
last signs of all of them that can be told (`standstill`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

BEAT_EVERY_S = 4.0
LOOK_AFTER_S = 15.0
"""From here on a sign says which line of code the rank is at; looking costs something."""

TRAINING, FETCHING, SAVING, EVALUATING, STARTING = "training", "waiting for samples", "saving", "evaluating", "starting"
PUSHING = "waiting for uploads to the Hub"
_COLLECTIVE_FILES = ("torch/distributed/", "torch\\distributed\\", "ray/train/")
_COLLECTIVE_FUNCTIONS = ("_engine_run_backward",)  # DDP exchanges gradients in there
# Where the host waits for the device, on which a collective may hang.
_DEVICE_FUNCTIONS = (("engine/finite.py", "_judge"), ("engine/meters.py", "window"), ("engine/step.py", "move"))
_LIBRARIES = ("site-packages", "dist-packages", "lib/python")


@dataclass(frozen=True)
class Beat:
    """One sign of life."""

    start: str
    """Which start of the workers it belongs to; signs of an earlier one mean nothing."""
    rank: int
    process: str
    """Where the rank runs, for people: host and process id."""
    step: int
    doing: str
    for_s: float
    where: str = ""
    is_in_collective: bool = False


class Pulse:
    """Beats while it is entered, for the thread that enters it. `at` costs an assignment."""

    def __init__(self, start: str, rank: int, process: str, *, step: int, post: Callable[[Beat], object]) -> None:
        self._start, self._rank, self._process, self._post = start, rank, process, post
        self._at = (step, STARTING, time.monotonic())
        self._thread_id = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")

    def at(self, doing: str, *, step: int | None = None) -> None:
        self._at = (self._at[0] if step is None else step, doing, time.monotonic())

    def while_fetching(self, blocks: Iterable[T]) -> Iterator[T]:
        """The same blocks; while the next one is waited for, that is what the rank is doing."""
        iterator = iter(blocks)
        while True:
            self.at(FETCHING)
            block = next(iterator, None)
            self.at(TRAINING)
            if block is None:
                return
            yield block

    def __enter__(self) -> Pulse:
        self._thread_id = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(timeout=BEAT_EVERY_S)

    def sign(self) -> Beat:
        step, doing, since = self._at
        for_s = time.monotonic() - since
        where, is_in_collective = "", False
        if for_s > LOOK_AFTER_S:
            where, is_in_collective = place_of(sys._current_frames().get(self._thread_id))
        return Beat(self._start, self._rank, self._process, step, doing, for_s, where, is_in_collective)

    def _beat(self) -> None:
        while True:  # the first at once: a rank that was never heard of cannot be named
            try:
                self._post(self.sign())
            except Exception:  # the board is gone, and so will be this process
                return
            if self._ending.wait(BEAT_EVERY_S):
                return


def place_of(frame: FrameType | None) -> tuple[str, bool]:
    """(innermost line that is no library's, whether it waits in a collective) of a thread."""
    where, is_in_collective = "", False
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if any(part in file for part in _COLLECTIVE_FILES) or function in _COLLECTIVE_FUNCTIONS:
            is_in_collective = True
        if any(file.endswith(name) and function == waits for name, waits in _DEVICE_FUNCTIONS):
            is_in_collective = True
        if not where and not any(part in file for part in _LIBRARIES):
            where = f"{function} ({file}:{frame.f_lineno})"
        frame = frame.f_back
    return where, is_in_collective
