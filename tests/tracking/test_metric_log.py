from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.tracking.jsonl import METRICS_FILE, JsonlTracker
from lerobot_ray.tracking.metric_log import load_metrics
from lerobot_ray.tracking.protocol import Outcome
from tests.tracking.trackers import run_info


def train(folder, first, last, *, loss=lambda step: float(step), outcome=None, every=1):
    """One attempt that logs each step it has taken; without an outcome it is as if killed."""
    tracker = JsonlTracker()
    tracker.start(run_info(folder, first_step=first))
    for step in range(first + every, last + 1, every):
        tracker.log({"train/loss": loss(step)}, step=step, time_s=1e9 + step)
    if outcome:
        tracker.close(outcome)


def test_values_come_back(tmp_path):
    tracker = JsonlTracker()
    tracker.start(run_info(tmp_path))
    tracker.log({"train/loss": 0.5, "train/lr": 1e-5}, step=10, time_s=123.0)
    tracker.log({"eval/loss": 0.75}, step=10)
    tracker.log({"train/loss": float("nan"), "train/lr": float("inf")}, step=20)
    tracker.log_checkpoint(tmp_path / "checkpoints" / "000020", step=20)
    tracker.close(Outcome("failed", "OSError: at http://me:secret@host"))
    log = load_metrics(tmp_path)
    loss = log.series["train/loss"]
    assert loss.step.tolist() == [10, 20]
    assert loss.value[0] == 0.5
    assert np.isnan(loss.value[1])
    assert loss.time_s[0] == 123.0
    assert log.series["eval/loss"].step.tolist() == [10]
    assert [(mark.step, mark.path) for mark in log.checkpoints] == [(20, "checkpoints/000020")]
    (attempt,) = log.attempts
    assert (attempt.status, attempt.last_step, attempt.info["world_size"]) == ("failed", 20, 2)
    assert attempt.info["config"]["policy"]["chunk_size"] == 8
    assert attempt.message == "OSError: at http://***@host"
    assert "packages" not in attempt.info["environment"]


def test_every_line_is_strict_json(tmp_path):
    train(tmp_path, 0, 3, loss=lambda step: float("nan"), outcome=Outcome())

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    for line in (tmp_path / METRICS_FILE).read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_steps_a_restart_took_back_are_not_in_the_curve(tmp_path):
    train(tmp_path, 0, 60, loss=lambda step: step)
    train(tmp_path, 40, 70, loss=lambda step: step + 0.5)
    train(tmp_path, 20, 30, loss=lambda step: step + 0.25)
    train(tmp_path, 25, 50, loss=lambda step: step + 0.125, outcome=Outcome())
    log = load_metrics(tmp_path)
    loss = log.series["train/loss"]
    assert loss.step.tolist() == list(range(1, 51))
    expected = [*range(1, 21), *(step + 0.25 for step in range(21, 26)), *(step + 0.125 for step in range(26, 51))]
    assert loss.value.tolist() == expected
    assert [attempt.number for attempt in log.attempts] == [1, 2, 3, 4]
    assert [attempt.status for attempt in log.attempts] == [None, None, None, "finished"]
    assert [attempt.last_step for attempt in log.attempts] == [60, 70, 30, 50]


@given(cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=5))
def test_a_curve_with_restarts_is_one_value_per_step_of_the_attempt_that_lives_on(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("run")
    owner: dict[int, int] = {}
    at = 0
    for number, (back, forward) in enumerate([(0, 10), *cuts], start=1):
        first = max(0, at - back)
        at = first + forward
        train(folder, first, at, loss=lambda step, number=number: float(number))
        owner = {step: who for step, who in owner.items() if step <= first} | dict.fromkeys(
            range(first + 1, at + 1), number
        )
    loss = load_metrics(folder).series["train/loss"] if owner else None
    found = dict(zip(loss.step.tolist(), loss.value.astype(int).tolist(), strict=True)) if loss else {}
    assert found == owner


def test_a_torn_last_line_is_skipped_and_the_next_attempt_writes_after_it(tmp_path):
    train(tmp_path, 0, 5)
    path = tmp_path / METRICS_FILE
    whole = path.read_bytes()
    for cut in (1, 2, 10, 30):
        path.write_bytes(whole[:-cut])
        log = load_metrics(tmp_path)
        whole_lines = 5 if cut == 1 else 4  # without its line end alone, the line is still whole
        assert log.series["train/loss"].step.tolist() == list(range(1, whole_lines + 1))
        assert log.unreadable_lines == (0 if cut == 1 else 1)
        train(tmp_path, 4, 6, outcome=Outcome())
        after = load_metrics(tmp_path)
        assert after.series["train/loss"].step.tolist() == [1, 2, 3, 4, 5, 6]
        assert after.attempts[-1].number == 2
        assert after.attempts[-1].status == "finished"


def test_a_first_line_torn_leaves_a_readable_file(tmp_path):
    (tmp_path / METRICS_FILE).write_bytes(b'{"event": "start", "step": 0, "ti')
    train(tmp_path, 0, 3)
    log = load_metrics(tmp_path)
    assert log.series["train/loss"].step.tolist() == [1, 2, 3]
    assert [attempt.number for attempt in log.attempts] == [1]


def test_garbage_in_the_middle_does_not_hide_the_rest(tmp_path):
    train(tmp_path, 0, 3)
    with (tmp_path / METRICS_FILE).open("ab") as file:
        file.write(b'\xff\xfe\x00[1, 2]\n[1, 2]\n"text"\n{"step": 4}\n')
        file.write(b'{"step": 4, "time": 1.0, "attempt": 1, "train/loss": 4.0, "note": "words"}\n')
    log = load_metrics(tmp_path)
    assert log.unreadable_lines == 4
    assert log.series["train/loss"].step.tolist() == [1, 2, 3, 4]
    assert "note" not in log.series


def test_a_full_disk_tears_at_most_one_line(tmp_path, monkeypatch):
    import os

    tracker = JsonlTracker()
    tracker.start(run_info(tmp_path))
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:7]))
    with pytest.raises(OSError, match="only 7 of"):
        tracker.log({"train/loss": 1.0}, step=1)
    monkeypatch.undo()
    tracker.log({"train/loss": 2.0}, step=2)
    tracker.close(Outcome())
    log = load_metrics(tmp_path)
    assert log.series["train/loss"].step.tolist() == [2]
    assert log.unreadable_lines == 1


def test_a_folder_without_metrics_says_so(tmp_path):
    with pytest.raises(DatasetError, match="not there"):
        load_metrics(tmp_path)


def test_a_hundred_thousand_lines_are_read_in_seconds(tmp_path):
    line = '{{"step": {0}, "time": {0}.5, "attempt": 1, "train/loss": 0.5, "train/lr": 1e-5, "train/step_s": 0.1}}\n'
    (tmp_path / METRICS_FILE).write_text("".join(line.format(step) for step in range(1, 100_001)))
    started = time.perf_counter()
    log = load_metrics(tmp_path)
    assert len(log.series["train/loss"].step) == 100_000
    assert time.perf_counter() - started < 20
