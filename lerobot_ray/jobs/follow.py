"""Watching a job: its log as it comes, again after a lost connection, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from lerobot_ray.core.errors import JobError
from lerobot_ray.jobs.deadline import TIMED_OUT
from lerobot_ray.on_ray.job_server import JobServer, JobState

REFUSED = 2
"""Exit code of a run that cannot work; trying again changes nothing."""
STOPPED = 143
POLL_S = 0.5
GIVE_UP_S = 300.0
"""So long a job server may be away."""
_HINTS = {
    "No module named": "The python of that cluster lacks a package. lerobot_ray travels with the job, what it depends "
    "on does not: it belongs into the image of the nodes.",
    "runtime_env": "The environment of the job could not be made on that node.",
}
_NO_SUCH_COMMAND = 127
_HINT_127 = (
    "The machine that runs the command has no such program on its PATH. Was the head started with the environment "
    "active that has lerobot_ray's dependencies?"
)


def follow(
    server: JobServer, job_id: str, *, write: Callable[[str], None], give_up_s: float = GIVE_UP_S, pause_s: float = 2.0
) -> JobState:
    """Hands the whole log of a job to `write` until the job is over, then says how it ended. A lost connection is made
    again and nothing is written twice; JobError when the server stays away."""
    log = _Log(write)
    away_since: float | None = None
    while True:
        try:
            server.follow(job_id, log.start())
            state = server.job(job_id)
            if state.is_over:
                _write_rest(server, job_id, log)
                return state
            away_since = None
            time.sleep(POLL_S)
        except JobError as error:
            now = time.monotonic()
            away_since = away_since or now
            if now - away_since > give_up_s or "does not exist" in str(error):
                raise
            time.sleep(pause_s)


def exit_code(state: JobState) -> int:
    """The job's own exit code; 143 for a job that was stopped, 1 for one that could not say."""
    if state.status == "SUCCEEDED":
        return 0
    if state.status == "STOPPED":
        return STOPPED
    if state.exit_code is None:
        return 1
    return state.exit_code if state.exit_code >= 0 else 128 - state.exit_code


def is_worth_retrying(state: JobState) -> bool:
    """Whether it died, rather than ended: not when it was stopped, refused its settings, or ran out of time."""
    return state.status == "FAILED" and exit_code(state) not in (REFUSED, TIMED_OUT)


def how_it_ended(state: JobState, *, said_something: bool) -> str:
    """In words, with what is known of a job that died before its first line."""
    took = ""
    if state.start_time_ms and state.end_time_ms:
        took = f" after {(state.end_time_ms - state.start_time_ms) / 1000:.0f} s"
    if state.status == "SUCCEEDED":
        return f"{state.id} succeeded{took}"
    if state.status == "STOPPED":
        return f"{state.id} was stopped{took}"
    lines = [f"{state.id} failed{took}, exit code {exit_code(state)}"]
    if not said_something or state.exit_code is None:
        lines.append(state.message.strip())
    hints = [hint for sign, hint in _HINTS.items() if sign in state.message]
    lines += [_HINT_127] if exit_code(state) == _NO_SUCH_COMMAND else hints[:1]
    return "\n".join(line for line in lines if line)


class _Log:
    """What was written already, so that a log read again from its start is written on from there."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self.written = write, 0

    def start(self) -> Callable[[str], None]:
        """A reader of the log from its first character."""
        seen = 0

        def read(text: str) -> None:
            nonlocal seen
            seen += len(text)
            new = seen - self.written
            if new > 0:
                self._write(text[-new:])
                self.written = seen

        return read


def _write_rest(server: JobServer, job_id: str, log: _Log) -> None:
    """What the stream may have missed of a job that ended quickly."""
    try:
        log.start()(server.logs(job_id))
    except JobError:  # its node is gone, and the log with it
        return
