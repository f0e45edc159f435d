from __future__ import annotations

import logging
import time

import pytest

from lerobot_ray.tracking.guarded import GuardedTrackers
from lerobot_ray.tracking.protocol import Outcome
from tests.tracking.trackers import Failing, Recorder, Stuck, run_info


def guarded(trackers, **options):
    return GuardedTrackers({str(number): tracker for number, tracker in enumerate(trackers)}, **options)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_every_tracker_gets_every_call_in_order_in_its_own_thread(tmp_path):
    trackers = [Recorder(), Recorder()]
    with guarded(trackers) as all_of_them:
        all_of_them.start(run_info(tmp_path))
        for step in range(500):
            all_of_them.log({"train/loss": step}, step=step)
        all_of_them.log_checkpoint(tmp_path / "checkpoints/000500", step=500)
        all_of_them.log_file(tmp_path / "a.mp4", folder="eval")
    for number, tracker in enumerate(trackers):
        assert tracker.calls == [
            ("start", "act"),
            *[("log", step, {"train/loss": float(step)}) for step in range(500)],
            ("checkpoint", 500, tmp_path / "checkpoints/000500"),
            ("file", tmp_path / "a.mp4", "eval"),
            ("close", Outcome("finished")),
        ]
        assert tracker.threads == {f"tracker-{number}"}


def test_a_failing_tracker_warns_once_per_kind_and_the_other_gets_everything(tmp_path, caplog):
    good, bad = Recorder(), Failing("log", "checkpoint")
    with guarded([bad, good]) as trackers:
        trackers.start(run_info(tmp_path))
        for step in range(50):
            trackers.log({"loss": 1.0}, step=step)
        trackers.log_checkpoint(tmp_path, step=50)
        trackers.log_checkpoint(tmp_path, step=51)
    assert good.steps == list(range(50))
    assert bad.calls[-1] == ("close", Outcome("finished")), "it is still closed"
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("0: log failed (ConnectionError" in line for line in said) == 1
    assert sum("0: log_checkpoint failed (ConnectionError" in line for line in said) == 1
    assert any("log failed 50 times in all" in line for line in said)
    assert "hunter2" not in caplog.text


def test_a_stuck_tracker_costs_the_caller_nothing_and_what_it_misses_is_counted(tmp_path, caplog):
    stuck, good = Stuck(), Recorder()
    trackers = guarded([stuck, good], queue_size=20, close_timeout_s=0.3)
    trackers.start(run_info(tmp_path))
    trackers.log({"loss": 0.0}, step=0)
    assert stuck.entered.wait(60)
    started = time.perf_counter()
    for step in range(1, 1000):
        trackers.log({"loss": 1.0}, step=step)
        if step % 10 == 0:
            wait_for(lambda step=step: good.steps[-1:] == [step])  # the good one keeps up
    assert time.perf_counter() - started < 60
    started = time.perf_counter()
    trackers.close()
    assert time.perf_counter() - started < 60, "close has a time limit"
    assert good.steps[-1] == 999
    assert "0 is slower than training: 20 log calls wait" in caplog.text
    assert "0: 979 log calls were dropped" in caplog.text
    assert "0 did not finish within 0.3 s; 22 calls are not recorded" in caplog.text  # 20, the one it is in, close
    stuck.release.set()


def test_a_slow_tracker_is_flushed_at_close(tmp_path):
    class Slow(Recorder):
        def log(self, values, *, step, time_s=None):
            time.sleep(0.002)
            super().log(values, step=step)

    slow = Slow()
    with guarded([slow]) as trackers:
        trackers.start(run_info(tmp_path))
        for step in range(100):
            trackers.log({"loss": 1.0}, step=step)
    assert slow.steps == list(range(100))


def test_a_store_that_is_away_at_the_start_gets_everything_once_it_is_back(tmp_path, caplog):
    late = Failing("start", times=3)
    with guarded([late], retry_start_s=0.01) as trackers:
        trackers.start(run_info(tmp_path))
        for step in range(10):
            trackers.log({"loss": 1.0}, step=step)
        wait_for(lambda: late.failed == 3)
    assert late.calls[0] == ("start", "act")
    assert late.steps == list(range(10))
    assert caplog.text.count("start failed (ConnectionError") == 1


def test_a_store_that_never_comes_is_given_up_at_close(tmp_path, caplog):
    gone = Failing("start")
    started = time.perf_counter()
    with guarded([gone], retry_start_s=3600) as trackers:
        trackers.start(run_info(tmp_path))
        trackers.log({"loss": 1.0}, step=1)
    assert time.perf_counter() - started < 60, "close does not wait for the retry"
    assert gone.calls == []
    assert "0 never started" in caplog.text


def test_an_error_in_the_run_is_its_outcome(tmp_path):
    recorder = Recorder()

    def run():
        with guarded([recorder]) as trackers:
            trackers.start(run_info(tmp_path))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run()
    assert recorder.calls[-1] == ("close", Outcome("failed", "ValueError: broken"))


def test_closing_twice_or_before_the_start_is_harmless(tmp_path):
    recorder, unused = Recorder(), Recorder()
    trackers = guarded([recorder])
    trackers.start(run_info(tmp_path))
    trackers.close(Outcome("stopped"))
    trackers.close()
    trackers.log({"loss": 1.0}, step=1)
    assert recorder.calls == [("start", "act"), ("close", Outcome("stopped"))]
    guarded([unused]).close()
    assert unused.calls == []


def test_values_are_copied_before_the_caller_changes_them(tmp_path):
    recorder, values = Stuck(), {"loss": 1.0}
    with guarded([recorder]) as trackers:
        trackers.start(run_info(tmp_path))
        trackers.log(values, step=1)
        values["loss"] = 2.0
        recorder.release.set()
    assert recorder.calls[1] == ("log", 1, {"loss": 1.0})
