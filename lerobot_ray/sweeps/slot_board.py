"""What passes between the driver and a slot: orders one way, the notes of the trial it is at the other.

The run itself is kept as a reference that only the training processes follow, so that this actor stays small.
"""

from __future__ import annotations

from typing import Any

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.on_ray.board import Board
from lerobot_ray.on_ray.standstill import Signs

CLOSE = -1


class SlotBoard(Board):
    """The board of whatever trial a slot is at, and the slot's orders. An actor without CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self._number: int | None = None
        self._kept: list[Any] = []
        self._is_closed = False
        self._starts, self._most_starts = 0, 1
        self._crash = ""

    def assign(self, number: int, kept: list[Any], max_failures: int) -> None:
        """The slot's next run, a RunSetup as a reference in a list. Orders are numbered upwards."""
        self._stop, self._fatal, self._starts, self._crash = "", None, 0, ""
        self._results = []  # of the trial before, which its trackers get from the driver
        self._signs = Signs()
        self._number, self._kept, self._most_starts = number, kept, max_failures + 1

    def close(self) -> None:
        self._is_closed = True

    def next_order(self) -> int | None:
        """Asked by rank 0: the number of the run to begin or to begin again, None to ask again, CLOSE to leave."""
        if self._number is None:
            return CLOSE if self._is_closed else None
        self._starts += 1
        if self._fatal is None and 0 < self._most_starts < self._starts:
            self._fatal = LerobotRayError(f"its workers were lost {self._starts - 1} times. {self._crash}".strip())
        return self._number

    def order(self) -> list[Any]:
        return self._kept

    def crashed(self, text: str) -> None:
        """An exception that another start may not meet."""
        self._crash = text

    def done(self, number: int, step: int | None) -> None:
        """The run has ended, well or not; the driver hears of it with the notes."""
        if self._number != number:  # said already
            return
        self._number = None
        self.post("done", (number, step, "" if self._fatal is None else str(self._fatal) or repr(self._fatal)))
