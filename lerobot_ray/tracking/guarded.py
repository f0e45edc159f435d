"""Trackers that can neither stop nor slow training: each works in its own thread, and its errors are said, not raised.

Calls go into a bounded queue per tracker and return at once. What does not fit is dropped and counted. A tracker that
raises is warned about once per kind of failure. `close` waits a limited time for what is queued.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_ray.tracking.protocol import Outcome, RunInfo, Tracker
from lerobot_ray.tracking.redact import redacted_text

logger = logging.getLogger(__name__)


class GuardedTrackers:
    """Several trackers as one. A context manager: closes them as finished, or as failed with the error that leaves it.

    `start` of a tracker that is unreachable is tried again every `retry_start_s`; its calls wait in the queue.
    `stop_timeout_s` is the limit of `close` when the run was asked to stop: its machine may be about to go.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        *,
        queue_size: int = 10_000,
        close_timeout_s: float = 60.0,
        stop_timeout_s: float = 15.0,
        retry_start_s: float = 60.0,
    ) -> None:
        self._lanes = [_Lane(name, tracker, queue_size, retry_start_s) for name, tracker in trackers.items()]
        self._close_timeout_s, self._stop_timeout_s = close_timeout_s, min(stop_timeout_s, close_timeout_s)
        self._is_closed = False

    def start(self, run: RunInfo) -> None:
        self._submit("start", run)

    def log(self, values: Mapping[str, float], *, step: int, time_s: float | None = None) -> None:
        time_s = time.time() if time_s is None else time_s
        self._submit("log", {name: float(value) for name, value in values.items()}, step=step, time_s=time_s)

    def log_checkpoint(self, checkpoint: Path, *, step: int) -> None:
        self._submit("log_checkpoint", checkpoint, step=step)

    def log_file(self, path: Path, *, folder: str = "") -> None:
        self._submit("log_file", path, folder=folder)

    def close(self, outcome: Outcome | None = None) -> None:
        """Flush and end all trackers side by side, within the time limit. Later calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        outcome = outcome or Outcome()
        limit_s = self._stop_timeout_s if outcome.status == "stopped" else self._close_timeout_s
        deadline_s = time.monotonic() + limit_s
        for lane in self._lanes:
            lane.finish(outcome)
        for lane in self._lanes:
            lane.wait(until_s=deadline_s, limit_s=limit_s)

    def __enter__(self) -> GuardedTrackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        self.close(Outcome() if error is None else Outcome("failed", f"{type(error).__name__}: {error}"))

    def _submit(self, method: str, *args: Any, **kwargs: Any) -> None:
        if not self._is_closed:
            for lane in self._lanes:
                lane.submit(_Call(method, args, kwargs))


@dataclass(frozen=True)
class _Call:
    method: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


class _Lane:
    """One tracker, its thread and its queue."""

    def __init__(self, name: str, tracker: Tracker, queue_size: int, retry_start_s: float) -> None:
        self._name, self._tracker = name, tracker
        self._queue_size, self._retry_start_s = queue_size, retry_start_s
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._num_dropped = 0
        self._failures: Counter[tuple[str, str]] = Counter()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def submit(self, call: _Call) -> None:
        """Queue a call. Only numbers are ever dropped: starts, checkpoints and ends are few."""
        with self._changed:
            if call.method == "log" and len(self._calls) >= self._queue_size:
                self._num_dropped += 1
                is_first_drop = self._num_dropped == 1
            else:
                self._calls.append(call)
                self._changed.notify()
                is_first_drop = False
        if is_first_drop:
            logger.warning(
                "%s is slower than training: %d log calls wait for it, further ones are dropped until it catches up.",
                self._name,
                self._queue_size,
            )

    def finish(self, outcome: Outcome) -> None:
        with self._changed:
            self._calls.append(_Call("close", (outcome,)))
            self._is_closing = True
            self._changed.notify()

    def wait(self, *, until_s: float, limit_s: float) -> None:
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive():
            logger.warning(
                "%s did not finish within %g s; %d calls are not recorded there.",
                self._name,
                limit_s,
                len(self._calls) + 1,
            )
        if self._num_dropped:
            logger.warning("%s: %d log calls were dropped, it was too slow.", self._name, self._num_dropped)
        repeated = {kind: count for kind, count in self._failures.items() if count > 1}
        for (method, error), count in repeated.items():
            logger.warning("%s: %s failed %d times in all (%s).", self._name, method, count, error)

    def _work(self) -> None:
        first = self._next()
        if first.method != "start":  # closed before it began
            return
        while True:
            is_last_try = self._is_closing
            if self._attempt(first):
                break
            if is_last_try:
                logger.warning("%s never started; nothing of this run is recorded there.", self._name)
                return
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, timeout=self._retry_start_s)
        while True:
            call = self._next()
            self._attempt(call)
            if call.method == "close":
                return

    def _next(self) -> _Call:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._calls))
            return self._calls.popleft()

    def _attempt(self, call: _Call) -> bool:
        try:
            getattr(self._tracker, call.method)(*call.args, **call.kwargs)
        except Exception as error:  # whatever a tracking library raises, training goes on
            kind = (call.method, type(error).__name__)
            self._failures[kind] += 1
            if self._failures[kind] == 1:
                logger.warning(
                    "%s: %s failed (%s: %s). Training goes on; further failures of this kind are only counted.",
                    self._name,
                    call.method,
                    type(error).__name__,
                    redacted_text(str(error)),  # some libraries put their address into it, credentials included
                )
            return False
        return True
