"""Who ends trials. The schedulers are Ray Tune's: look here first when a new version of Ray behaves otherwise."""

from __future__ import annotations

from lerobot_ray.sweeps.stoppers import build_stoppers
from tests.sweeps.sweeps import plan_of


def told(plan, curves: dict[int, list[tuple[int, float]]]) -> dict[int, tuple[int, str]]:
    """Trial -> (step, reason) of those that were stopped, told trial after trial."""
    stoppers, found = build_stoppers(plan.sweep, steps=plan.steps), {}
    for trial, points in curves.items():
        for step, value in points:
            reason = next((said for one in stoppers if (said := one.says(trial, step=step, value=value))), "")
            if reason:
                found[trial] = (step, reason)
                break
    return found


def falling(height: float) -> list[tuple[int, float]]:
    return [(step, height + 1 / step) for step in range(10, 101, 10)]


def test_asha_lets_the_best_third_go_on(tmp_path):
    plan = plan_of(tmp_path, scheduler={"type": "asha", "grace_steps": 10, "reduction_factor": 3})
    stopped = told(plan, {0: falling(1), 1: falling(2), 2: falling(3), 3: falling(0.5)})
    assert stopped == {1: (10, "asha at step 10"), 2: (10, "asha at step 10")}


def test_asha_for_a_metric_that_rises(tmp_path):
    plan = plan_of(tmp_path, mode="max", scheduler={"type": "asha", "grace_steps": 10})
    up = {trial: [(step, trial * 10 + step) for step in (10, 50, 100)] for trial in (3, 1)}
    assert set(told(plan, up)) == {1}


def test_the_median_rule_waits_for_enough_trials(tmp_path):
    plan = plan_of(tmp_path, scheduler={"type": "median", "grace_steps": 20, "min_trials": 3})
    stopped = told(plan, {0: falling(1), 1: falling(3), 2: falling(1.2), 3: falling(9)})
    assert stopped == {3: (20, "median at step 20")}


def test_not_a_number_is_hopeless(tmp_path):
    plan = plan_of(tmp_path, scheduler="asha")
    assert told(plan, {0: [(10, float("nan"))]}) == {0: (10, "asha: nan is no number")}


def test_rules_of_the_file(tmp_path):
    plan = plan_of(tmp_path, stop={"value": 0.2, "patience": 2})
    stopped = told(plan, {0: [(10, 0.5), (20, 0.1)], 1: [(10, 1.0), (20, 1.1), (30, 1.2), (40, 0.3)]})
    assert stopped[0] == (20, "good enough: 0.1")
    assert stopped[1] == (30, "no better for 2 reports")


def test_fewer_steps_for_each(tmp_path):
    plan = plan_of(tmp_path, stop={"steps": 40})
    assert (plan.steps, plan.config.steps) == (40, 100), "the schedule stays that of all steps"
