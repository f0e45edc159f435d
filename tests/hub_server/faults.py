"""What goes wrong on purpose, and what was asked: rules for the n-th matching request, and a log without tokens."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Fault:
    """Applies to requests number `first` to `first + times - 1` (from 1) that match `method` and `path`."""

    path: str = ""
    """A regular expression searched in the decoded path with its query."""
    method: str = ""
    first: int = 1
    times: int = 1_000_000

    status: int = 0
    """Answer this instead of serving."""
    message: str = "fault injected by the test"
    code: str = ""
    """X-Error-Code, with `status`."""
    retry_after_s: float | None = None
    cut_after: int | None = None
    """Promise the whole body, send this many bytes of it, then close the connection."""
    corrupt: bool = False
    """Serve a body of the right length with its first byte changed."""
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """The line's speed, for the body of the request and of the answer."""

    seen: int = 0
    """Matching requests so far, hit or not."""


@dataclass
class Request:
    """One line of the log, there before the first byte of the answer. No headers, so no token."""

    method: str
    path: str
    query: str
    range: str
    user: str = ""
    status: int = 0
    sent_bytes: int = 0
    """Of the body, so far."""


@dataclass
class FaultBook:
    """The rules and the log of one server, shared by its threads."""

    rules: list[Fault] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, method: str, target: str) -> Fault | None:
        """The first rule that applies to this request. Every matching rule counts it."""
        chosen = None
        with self.lock:
            for rule in self.rules:
                if rule.method in ("", method) and re.search(rule.path, target):
                    rule.seen += 1
                    if chosen is None and rule.first <= rule.seen < rule.first + rule.times:
                        chosen = rule
        return chosen

    def requests(self, path: str = "", method: str = "") -> list[Request]:
        """The logged requests whose decoded path matches, oldest first."""
        with self.lock:
            return [r for r in self.log if method in ("", r.method) and re.search(path, r.path)]
