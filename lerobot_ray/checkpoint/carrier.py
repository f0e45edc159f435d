"""Brings complete checkpoints to a second place beside training: one thread, in order; what goes wrong is a warning.

What waits is bounded: when saving is faster than the line, the oldest one waiting is left out, because the newest is
what a resume wants.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path

from lerobot_ray.core.errors import LerobotRayError

logger = logging.getLogger(__name__)

MAX_WAITING = 3


class Abandoned(Exception):
    """The run ends without waiting for this checkpoint."""


class Carrier:
    """Lives on the rank that writes checkpoints. `submit` returns at once; nothing here raises into training.

    A place is a subclass: `_bring` puts one checkpoint there, calls `_go_on` now and then, and raises when it cannot.
    """

    def __init__(self, run_dir: Path, *, place: str, is_there: str, advice: str = "", max_waiting: int = MAX_WAITING):
        """In sentences: `place` is "the Hub", `is_there` "on the Hub", `advice` what makes a checkpoint smaller."""
        self._run_dir, self._place, self._is_there, self._advice = Path(run_dir), place, is_there, advice
        self._waiting: deque[Path] = deque()
        self._max_waiting = max_waiting
        self._under_way: Path | None = None
        self._state = threading.Condition()
        self._is_closing, self._is_abandoned = False, False
        self._stopped_by = ""
        self.missing: list[Path] = []
        """Checkpoints that did not get there."""
        self._thread = threading.Thread(target=self._work, name=f"to {place}", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Path) -> None:
        """Bring this complete checkpoint there when its turn comes."""
        with self._state:
            if checkpoint in self._waiting or self._is_known(checkpoint):
                return
            if self._stopped_by:
                self.missing.append(checkpoint)
                return
            self._waiting.append(checkpoint)
            while len(self._waiting) > self._max_waiting:
                left_out = self._waiting.popleft()
                self.missing.append(left_out)
                logger.warning(
                    "uploading to %s is slower than saving: the checkpoint of step %d is left out. Save less often%s.",
                    self._place,
                    int(left_out.name),
                    self._advice,
                )
            self._state.notify_all()

    def is_needed(self, checkpoint: Path) -> bool:
        """Whether this checkpoint waits or is being read: it must not be removed now."""
        with self._state:
            return checkpoint == self._under_way or checkpoint in self._waiting

    def finish(self) -> None:
        """Wait until everything is there or has failed."""
        with self._state:
            self._is_closing = True
            self._state.notify_all()
            waiting = len(self._waiting) + (self._under_way is not None)
        if waiting:
            logger.info("waiting for %d checkpoint%s on the way to %s", waiting, "s" * (waiting > 1), self._place)
        self._thread.join()

    def abandon(self) -> None:
        """End now: this process will be started again, or the run has failed. What was on its way is not there."""
        with self._state:
            self._is_closing = self._is_abandoned = True
            self._leave_out_waiting()
            self._state.notify_all()
        self._thread.join(timeout=2.0)  # a request under way cannot be called back; the thread ends with the process

    def summary(self) -> str:
        """What did not get there and how to bring it there; empty when all did."""
        if not self.missing:
            return ""
        names = ", ".join(path.name for path in self.missing)
        remedy = f" {self._remedy()}" if any(path.is_dir() for path in self.missing) else ""
        return f"not {self._is_there}: the checkpoints {names} of {self._run_dir}.{remedy}"

    # What a place is

    def _bring(self, checkpoint: Path) -> None:
        raise NotImplementedError

    def _is_known(self, checkpoint: Path) -> bool:
        """Whether it is there already, as far as is known here."""
        return False

    def _remedy(self) -> str:
        """How a person brings there later what is still here."""
        raise NotImplementedError

    def _words_of(self, error: Exception) -> str:
        """What an error says. Called once for each failure; may `_stop`."""
        return str(error) or type(error).__name__

    # The thread

    def _work(self) -> None:
        while True:
            with self._state:
                while not self._waiting and not self._is_closing:
                    self._state.wait()
                if not self._waiting:
                    return
                checkpoint = self._under_way = self._waiting.popleft()
            failure = ""
            try:
                self._bring(checkpoint)
            except Abandoned:
                failure = "the run ended first"
            except Exception as error:  # a second place is never worth a run
                failure = self._words_of(error)
                if not isinstance(error, LerobotRayError):
                    logger.debug("an upload failed", exc_info=True)
            with self._state:
                self._under_way = None
                if failure:
                    self.missing.append(checkpoint)
                if self._stopped_by or self._is_abandoned:
                    self._leave_out_waiting()
            if failure:
                logger.warning("the checkpoint of step %d is not %s: %s", int(checkpoint.name), self._is_there, failure)

    def _go_on(self) -> None:
        if self._is_abandoned:
            raise Abandoned

    def _stop(self, reason: str) -> None:
        """Bring nothing more."""
        with self._state:
            self._stopped_by = reason

    def _leave_out_waiting(self) -> None:
        self.missing.extend(self._waiting)
        self._waiting.clear()
