"""A sweep that does not fit its training flags is refused in words, before Ray or torch is there."""

from __future__ import annotations

import pytest

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.sweeps.fit import reported_every
from lerobot_ray.sweeps.plan import earlier_events
from lerobot_ray.sweeps.queue import TrialQueue
from tests.sweeps.sweeps import plan_of

REFUSED = {
    "unknown parameter": ({"parameters": {"optimizer.learning_rate": [1e-3]}}, [], "no such setting"),
    "nearest parameter": ({"parameters": {"policy.chunk_sise": [4]}}, [], r"Did you mean --policy.chunk_size"),
    "range for a whole number": (
        {"parameters": {"batch_size": "uniform(4, 32)"}},
        [],
        r"expected a whole number.*Use randint for whole numbers",
    ),
    "log range for a whole number": ({"parameters": {"batch_size": "loguniform(4, 32)"}}, [], "Use lograndint"),
    "a value out of bounds": ({"parameters": {"batch_size": [8, 0]}}, [], "batch_size=0 must be at least 1"),
    "metric with a typo": ({"metric": "eval/los"}, [], "Did you mean eval/loss"),
    "metric without its prefix": ({"metric": "loss"}, [], r"Did you mean \w+/loss"),
    "metric of another policy": ({"metric": "train/diffusion_loss"}, [], "no trial reports it"),
    "held-out loss without": ({"metric": "eval/loss"}, [], "--dataset.eval_split=0.1"),
    "success without environment": ({"metric": "eval/pc_success", "mode": "max"}, [], "comes from rollouts"),
    "trials that end before a report": (
        {"metric": "eval/pc_success", "mode": "max", "stop": {"steps": 50}},
        ["--env.type=reach", "--env_eval_freq=60"],
        "every 60 steps, and trials end at step 50",
    ),
    "zero trials": ({"num_trials": 0}, [], "at least one trial"),
    "endless": ({"num_trials": None}, [], "would go on for ever"),
    "no mode": ({"mode": None}, [], "mode is missing"),
    "unknown key": ({"metrics": 1}, [], "Did you mean metric"),
    "unknown searcher": ({"searcher": "optunna"}, [], "Did you mean optuna"),
    "grid over a range": ({"searcher": "grid"}, [], "write logspace"),
    "flag and parameter": ({}, ["--optimizer.lr=1e-4"], "Leave out the flag, or the parameter"),
    "what all trials share": ({"parameters": {"ray.num_workers": [1, 2]}}, [], "the same for all trials"),
    "resources twice": ({"resources_per_trial": {"workers": 2}}, ["--ray.num_workers=1"], "Use one of the two"),
    "remote job": ({}, ["--job.target=ray"], "ray job submit"),
    "architecture in a population": (
        {"scheduler": "pbt", "parameters": {"policy.dim_model": [64, 128]}},
        ["--log_freq=5"],
        "this one cannot change then",
    ),
    "a population that reports too rarely": (
        {"scheduler": {"type": "pbt", "interval": 10}},
        ["--log_freq=50"],
        "compared every 10 steps .* report train/loss every 50",
    ),
    "a population of one": ({"scheduler": "pbt", "num_trials": 1}, ["--log_freq=5"], "at least 2 trials"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    changes, flags, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, *flags, **changes)


def test_conditions_are_tried_together(tmp_path):
    parameters = {
        "optimizer.type": ["adam", "sgd"],
        "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "values": [0.9]},
        "policy.chunk_size": [10, 50],
        "policy.n_action_steps": "same_as(policy.chunk_size)",
    }
    assert plan_of(tmp_path, parameters=parameters).config.policy.n_action_steps == 10
    wrong = {"optimizer.type": ["adam", "sgd"], "optimizer.momentum": [0.9]}
    with pytest.raises(ConfigError, match=r"optimizer\.momentum"):
        plan_of(tmp_path, parameters=wrong)


def test_how_often_the_metric_comes(tmp_path):
    plan = plan_of(tmp_path, "--log_freq=7", "--eval_steps=25", "--dataset.eval_split=0.2")
    assert reported_every("train/loss", plan.config) == 7
    assert reported_every("eval/loss", plan.config) == 25


def test_a_folder_is_one_sweeps(tmp_path):
    plan = plan_of(tmp_path)
    queue = TrialQueue(plan, [])
    queue.record("start", sweep=plan.fingerprint(), slots=1, steps=100, words=[])
    with pytest.raises(ConfigError, match="holds a sweep already"):
        earlier_events(plan)
    assert earlier_events(plan_of(tmp_path, resume=True, num_trials=9)), "more trials are still the same sweep"
    with pytest.raises(ConfigError, match=r"another sweep: its parameters was .* now it is"):
        earlier_events(plan_of(tmp_path, resume=True, parameters={"batch_size": [4, 8]}))
    with pytest.raises(ConfigError, match="its flags was"):
        earlier_events(plan_of(tmp_path, "--policy.dim_model=64", resume=True))
    (tmp_path / "out" / "sweep.jsonl").unlink()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else than a sweep"):
        earlier_events(plan_of(tmp_path, resume=True))
