"""Fetching before somebody waits for it: a few background threads with a queue, gone when there is nothing to do."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

_IDLE_S = 5.0
_POLL_S = 0.2


class Stopped(Exception):
    """Raised inside a look-ahead fetch to end it early; never leaves this module's threads."""


class LookAhead:
    """Runs `fetch(path)` for paths wanted soon, oldest wish first, at most `parallel` at a time.

    A fetch that fails is forgotten here: whoever needs the file will ask for it, and see the reason. `fetch` should
    call `check()` often, which ends it when the interpreter does.

    The threads are not daemons: the interpreter would pull the ground from under them, and native code (pyarrow's S3
    client) crashes on that. Instead they notice that the main thread has ended, and the process waits for one chunk.
    """

    def __init__(self, fetch: Callable[[str], object], *, parallel: int = 4) -> None:
        self._fetch, self._parallel = fetch, parallel
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pending: set[str] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def add(self, paths: Iterable[str]) -> None:
        """Queue what is not queued or under way already. Returns at once."""
        with self._lock:
            if self._should_stop():
                return
            for path in paths:
                if path not in self._pending:
                    self._pending.add(path)
                    self._wanted.put(path)
            for _ in range(min(self._parallel, len(self._pending)) - len(self._threads)):
                thread = threading.Thread(target=self._work, name="lerobot_ray-look-ahead")
                self._threads.add(thread)
                thread.start()

    def check(self) -> None:
        """Raise Stopped in a look-ahead thread that should end."""
        if self._should_stop() and threading.current_thread() in self._threads:
            raise Stopped

    def wait(self, timeout_s: float) -> bool:
        """Until nothing is pending; False if the time ran out. For tests and tools."""
        deadline = time.monotonic() + timeout_s
        while self._pending and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._pending

    def stop(self) -> None:
        """Take nothing more from the queue, end what is under way at its next chunk. Returns when it has."""
        self._is_stopped = True
        for thread in list(self._threads):
            thread.join()

    def _should_stop(self) -> bool:
        return self._is_stopped or not threading.main_thread().is_alive()

    def _work(self) -> None:
        idle_since = time.monotonic()
        while not self._should_stop():
            try:
                path = self._wanted.get(timeout=_POLL_S)
            except queue.Empty:
                with self._lock:  # so that nobody adds, counting on us, while we leave
                    if time.monotonic() - idle_since > _IDLE_S and self._wanted.empty():
                        self._threads.discard(threading.current_thread())
                        return
                continue
            try:
                self._fetch(path)
            except Stopped:
                pass
            except Exception as error:  # whatever it was, `local` will meet it again and say so
                logger.debug("look-ahead of %s failed: %s", path, error)
            finally:
                with self._lock:
                    self._pending.discard(path)
                idle_since = time.monotonic()
        with self._lock:
            self._threads.discard(threading.current_thread())
