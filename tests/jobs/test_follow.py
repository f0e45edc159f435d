"""Words about how a job ended. Following real jobs: test_ray_job."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.jobs.follow import _Log, exit_code, how_it_ended, is_worth_retrying
from lerobot_ray.on_ray.job_server import JobState, check_versions


def state(status, code=None, message=""):
    return JobState(id="act-1", status=status, exit_code=code, message=message, start_time_ms=0, end_time_ms=2000)


@pytest.mark.parametrize(
    ("job", "code", "again"),
    [
        (state("SUCCEEDED", 0), 0, False),
        (state("FAILED", 1), 1, True),
        (state("FAILED", 2), 2, False),
        (state("FAILED", 124), 124, False),
        (state("FAILED", -9), 137, True),
        (state("FAILED"), 1, True),
        (state("STOPPED"), 143, False),
    ],
)
def test_exit_codes_and_which_deserve_another_attempt(job, code, again):
    assert (exit_code(job), is_worth_retrying(job)) == (code, again)


def test_a_job_that_said_nothing_is_explained_by_what_the_server_knows():
    died = state("FAILED", 1, "exit code 1, last logs:\nModuleNotFoundError: No module named 'draccus'")
    assert "No module named 'draccus'" in how_it_ended(died, said_something=False)
    assert "belongs into the image" in how_it_ended(died, said_something=True)
    absent = state("FAILED", 127, "exit code 127, last logs:\n/bin/sh: 1: exec: python: not found")
    assert "environment active" in how_it_ended(absent, said_something=True)


def test_a_log_read_again_is_written_once():
    written = []
    log = _Log(written.append)
    first = log.start()
    first("one\ntw")
    again = log.start()  # after a lost connection it begins anew, in other pieces
    for piece in ("one\n", "two\nth", "ree\n"):
        again(piece)
    assert "".join(written) == "one\ntwo\nthree\n"


def test_versions_are_both_named():
    assert check_versions("2.60.0", "2.60.1", address="x") == ""
    said = check_versions("2.60.0", "2.61.0", address="x")
    assert "2.60.0" in said
    assert "2.61.0" in said
    with pytest.raises(ConfigError, match=r"runs Ray 2\.9\.3, this machine has Ray 2\.60\.0"):
        check_versions("2.60.0", "2.9.3", address="x")


def test_a_deadline_asks_first_and_ends_after_the_grace():
    code = """
import signal, sys, time
from lerobot_ray.jobs.deadline import Deadline
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
Deadline(0.1, grace_s=6)
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("asked\n", 124)


def test_time_that_is_up_before_a_run_listens_ends_it_as_such():
    code = """
import time
from lerobot_ray.jobs.deadline import STOP_AFTER_VARIABLE, deadline_of_job
deadline_of_job({STOP_AFTER_VARIABLE: "0.1"})
time.sleep(60)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 124
