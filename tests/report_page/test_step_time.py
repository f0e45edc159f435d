from __future__ import annotations

import pytest

from lerobot_ray.report_page.step_time import step_time
from lerobot_ray.tracking.jsonl import JsonlTracker
from lerobot_ray.tracking.metric_log import load_metrics
from lerobot_ray.tracking.protocol import Outcome, RunInfo


def logged(folder, lines, *, first_step=0, start_s=0.0):
    tracker = JsonlTracker(clock=lambda: start_s)
    tracker.start(RunInfo(output_dir=folder, name="run", first_step=first_step))
    for step, time_s, values in lines:
        tracker.log({f"train/{name}": value for name, value in values.items()}, step=step, time_s=time_s)
    tracker.close(Outcome())
    return load_metrics(folder)


def layers_of(times):
    return {layer.name: layer.value.tolist() for layer in times.layers}


def test_what_the_clock_saw_beyond_the_parts_is_the_rest(tmp_path):
    values = {"step_s": 1.0, "update_s": 0.7, "dataloading_s": 0.2}
    times = step_time(logged(tmp_path, [(10, 100.0, values), (20, 115.0, values)]))
    layers = layers_of(times)
    assert layers["forward, backward, update"] == [0.7, 0.7]
    assert layers["waiting for data"] == [0.2, 0.2]
    # The first line's clock also saw the start-up: 1 s as measured. Then 15 s of clock for 10 steps.
    assert layers["all else"] == pytest.approx([0.1, 0.6])
    assert "saving checkpoints" not in layers
    assert times.weight.tolist() == [10, 10]
    assert times.share("waiting for data") == pytest.approx(0.2 / 1.25)


def test_the_rest_is_called_after_what_is_in_it(tmp_path):
    tracker = JsonlTracker(clock=lambda: 0.0)
    tracker.start(RunInfo(output_dir=tmp_path, name="run", first_step=0))
    tracker.log({"train/step_s": 1.0, "train/update_s": 0.9, "eval/loss": 0.5}, step=10, time_s=10.0)
    tracker.close(Outcome())
    assert list(layers_of(step_time(load_metrics(tmp_path)))) == [
        "forward, backward, update",
        "evaluation and all else",
    ]


def test_time_between_attempts_is_nobodys(tmp_path):
    values = {"step_s": 1.0, "update_s": 1.0}
    logged(tmp_path, [(10, 10.0, values), (20, 20.0, values)])
    log = logged(tmp_path, [(16, 9006.0, values), (26, 9016.0, values)], first_step=15, start_s=9000.0)
    times = step_time(log)
    assert times.step.tolist() == [10, 16, 26]
    assert layers_of(times)["all else"] == pytest.approx([0, 0, 0])
    assert times.weight.tolist() == [10, 1, 10]


def test_a_part_missing_from_some_lines_counts_as_none_there(tmp_path):
    lines = [(1, 1.0, {"step_s": 1.0}), (2, 2.0, {"step_s": 1.0, "checkpoint_s": 0.5})]
    assert layers_of(step_time(logged(tmp_path, lines)))["saving checkpoints"] == [0.0, 0.5]


def test_without_measured_steps_there_is_none(tmp_path):
    assert step_time(logged(tmp_path, [(1, 1.0, {"loss": 1.0})])) is None
