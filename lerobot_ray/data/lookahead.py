"""Fetching before somebody waits for it: a few background threads with a queue, gone when there is nothing to do."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

_IDLE_S = 5.0
_all: weakref.WeakSet[LookAhead] = weakref.WeakSet()


class Stopped(Exception):
    """Raised inside a look-ahead fetch to end it early; never leaves this module's threads."""


class LookAhead:
    """Runs `fetch(path)` for paths wanted soon, oldest wish first, at most `parallel` at a time.

    A fetch that fails is forgotten here: whoever needs the file will ask for it, and see the reason. `fetch` should
    call `check()` often, which ends it when the interpreter does.
    """

    def __init__(self, fetch: Callable[[str], object], *, parallel: int = 4) -> None:
        self._fetch, self._parallel = fetch, parallel
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._pending: set[str] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._is_stopped = False
        _all.add(self)

    def add(self, paths: Iterable[str]) -> None:
        """Queue what is not queued or under way already. Returns at once."""
        with self._lock:
            if self._is_stopped:
                return
            for path in paths:
                if path not in self._pending:
                    self._pending.add(path)
                    self._wanted.put(path)
            for _ in range(min(self._parallel, len(self._pending)) - len(self._threads)):
                thread = threading.Thread(target=self._work, name="lerobot_ray-look-ahead", daemon=True)
                self._threads.add(thread)
                thread.start()

    def check(self) -> None:
        """Raise Stopped in a look-ahead thread that should end."""
        if self._is_stopped and threading.current_thread() in self._threads:
            raise Stopped

    def wait(self, timeout_s: float) -> bool:
        """Until nothing is pending; False if the time ran out. For tests and tools."""
        deadline = time.monotonic() + timeout_s
        while self._pending and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._pending

    def stop(self, *, timeout_s: float = 2.0) -> None:
        """Take nothing more from the queue, end what is under way at its next chunk."""
        self._is_stopped = True
        for _ in list(self._threads):
            self._wanted.put(None)  # wakes one that waits
        deadline = time.monotonic() + timeout_s
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            try:
                path = self._wanted.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._wanted.empty():  # else somebody added while we were leaving
                        self._threads.discard(threading.current_thread())
                        return
                continue
            if path is None or self._is_stopped:
                self._threads.discard(threading.current_thread())
                return
            try:
                self._fetch(path)
            except Stopped:
                pass
            except Exception as error:  # whatever it was, `local` will meet it again and say so
                logger.debug("look-ahead of %s failed: %s", path, error)
            finally:
                with self._lock:
                    self._pending.discard(path)


@atexit.register
def _stop_all() -> None:
    for ahead in list(_all):
        ahead.stop()
