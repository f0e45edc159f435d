"""Progress on the driver: one line that is written over in a terminal, one line per log interval anywhere else."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

WAITS_SAID_EVERY_S = 20.0


class Progress:
    """Fed with what the board brings: `at` a step, `numbers` of a window, `say` a line of text."""

    def __init__(
        self, total_steps: int, *, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._out, self._clock = total_steps, out or sys.stderr, clock
        self._is_terminal = self._out.isatty()
        self._first: tuple[int, float] | None = None
        self._last = 0
        self._latest: Mapping[str, float] = {}
        self._shown = False
        self._waits_said_at = -math.inf

    def at(self, step: int) -> None:
        """The run stands at this step. A step before the last one means that it went back to a checkpoint."""
        if self._first is None or step < self._last:
            self._first = (step, self._clock())
        self._last = step
        if self._is_terminal:
            self._draw(step)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._latest = {**self._latest, **values}
        self.at(step)
        if not self._is_terminal:
            self.say(self._line(step))

    def waits_for(self, text: str) -> None:
        """Training is over, and this is what is waited for; call it as often as you like."""
        if self._is_terminal:
            self._write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
            self._shown = True
        elif self._clock() - self._waits_said_at > WAITS_SAID_EVERY_S:
            self._waits_said_at = self._clock()
            self.say(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _draw(self, step: int) -> None:
        width = shutil.get_terminal_size().columns - 1
        filled = round(20 * min(1.0, step / self._total))
        self._write(f"\r\x1b[K{('█' * filled + '░' * (20 - filled) + ' ' + self._line(step))[:width]}")
        self._shown = True

    def _line(self, step: int) -> str:
        parts = [f"step {step}/{self._total}"]
        values = self._latest
        if "train/loss" in values:
            parts.append(f"loss {values['train/loss']:.4g}")
        if "eval/loss" in values:
            parts.append(f"held-out {values['eval/loss']:.4g}")
        if "train/samples_per_s" in values:
            parts.append(f"{values['train/samples_per_s']:.3g} samples/s")
        if values.get("train/step_s"):
            parts.append(f"data wait {100 * values.get('train/dataloading_s', 0.0) / values['train/step_s']:.0f} %")
        if (left_s := self._seconds_left(step)) is not None:
            parts.append(f"{duration(left_s)} left")
        return " · ".join(parts)

    def _seconds_left(self, step: int) -> float | None:
        if self._first is None or step <= self._first[0] or step >= self._total:
            return None
        first, since = self._first
        return (self._total - step) * (self._clock() - since) / (step - first)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h 05 min, 3 d 4 h."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02d} min" if days < 1 else f"{days} d {hours % 24} h"
