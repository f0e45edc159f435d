"""Trying again: which failures deserve it is the caller's to say, how long to wait is decided here."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")


class TransientError(Exception):
    """A failure that may pass. `retry_after_s` is what the server asked for, `progressed` says that bytes came in."""

    def __init__(self, reason: str, retry_after_s: float | None = None, progressed: bool = False) -> None:
        super().__init__(reason, retry_after_s, progressed)
        self.reason, self.retry_after_s, self.progressed = reason, retry_after_s, progressed

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential waits with jitter; a server that names a time is obeyed up to `longest_wait_s`."""

    attempts: int = 8
    """Failures in a row, without a byte of progress between them, before giving up."""
    first_wait_s: float = 0.5
    longest_backoff_s: float = 60.0
    longest_wait_s: float = 300.0

    def wait_s(self, failures: int, retry_after_s: float | None) -> float:
        """Seconds to wait after this many failures in a row."""
        if retry_after_s is not None:
            # Never earlier than asked; a little later, so that a whole cluster does not come back in the same instant.
            return min(retry_after_s, self.longest_wait_s) * random.uniform(1.0, 1.1)
        return min(self.first_wait_s * 2 ** (failures - 1), self.longest_backoff_s) * random.uniform(0.5, 1.0)


PATIENT = RetryPolicy(attempts=12, first_wait_s=1.0, longest_backoff_s=120.0)
"""For uploads beside training, which have time: about a quarter of an hour of a place that is away."""


def call_with_retries(
    call: Callable[[], T], *, what: str, policy: RetryPolicy, check: Callable[[], None] = lambda: None
) -> T:
    """`call()`, again after each TransientError until the policy gives up, which raises the last one.

    `check` is called every moment while waiting; what it raises ends the wait.
    """
    failures = 0
    while True:
        try:
            return call()
        except TransientError as error:
            failures = 1 if error.progressed else failures + 1
            if failures >= policy.attempts:
                raise
            wait_s = policy.wait_s(failures, error.retry_after_s)
            logger.log(
                logging.WARNING if failures > 2 or wait_s > 10 else logging.INFO,
                "%s: %s. Trying again in %.1f s (%d of %d)",
                what,
                error,
                wait_s,
                failures,
                policy.attempts - 1,
            )
            until = time.monotonic() + wait_s
            while (left_s := until - time.monotonic()) > 0:
                check()
                time.sleep(min(left_s, 0.2))


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds a server asks to wait: `Retry-After` (a number or a date), or the reset time in the Hub's `RateLimit`."""
    if value := headers.get("Retry-After") or headers.get("retry-after"):
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None
    limit = re.search(r"\bt=(\d+)", headers.get("RateLimit") or headers.get("ratelimit") or "")
    return float(limit.group(1)) if limit else None
