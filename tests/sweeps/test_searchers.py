"""Who chooses: the same choices for the same seed and the same answers, within what may be tried."""

from __future__ import annotations

import pytest

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.sweeps.searchers import build_searcher
from tests.sweeps.sweeps import plan_of

CONDITIONAL = {
    "optimizer.type": ["sgd", "adam"],
    "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "values": "uniform(0.5, 0.99)"},
    "optimizer.lr": [
        {"when": {"optimizer.type": "sgd"}, "values": "loguniform(1e-2, 1)"},
        {"values": "loguniform(1e-5, 1e-3)"},
    ],
    "batch_size": "lograndint(4, 64)",
    "policy.chunk_size": [50, 100],
    "policy.n_action_steps": "same_as(policy.chunk_size)",
}


def asked(sweep, count: int, *, answers=lambda number: float(number)) -> list[dict]:
    searcher, found = build_searcher(sweep), []
    for number in range(count):
        found.append(searcher.suggest(number))
        searcher.reported(number, step=1, value=answers(number))
        searcher.ended(number, answers(number))
    return found


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_conditions_hold_and_choices_repeat(tmp_path, kind):
    sweep = plan_of(tmp_path, searcher=kind, num_trials=20, parameters=CONDITIONAL).sweep
    found = asked(sweep, 20)
    assert found == asked(sweep, 20), "what a resume relies on"
    assert {values["optimizer.type"] for values in found} == {"sgd", "adam"}
    for values in found:
        is_sgd = values["optimizer.type"] == "sgd"
        assert ("optimizer.momentum" in values) == is_sgd
        assert (1e-2 <= values["optimizer.lr"] <= 1) == is_sgd
        assert 4 <= values["batch_size"] < 64
        assert isinstance(values["batch_size"], int)
        assert values["policy.n_action_steps"] == values["policy.chunk_size"]


def test_a_random_set_does_not_depend_on_the_others(tmp_path):
    sweep = plan_of(tmp_path).sweep
    assert build_searcher(sweep).suggest(3) == asked(sweep, 4)[3]
    other = plan_of(tmp_path, searcher={"type": "random", "seed": 1}).sweep
    assert asked(other, 1) != asked(sweep, 1)


def test_a_grid_has_all_combinations_once(tmp_path):
    parameters = {
        "optimizer.type": ["sgd", "adam"],
        "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "values": [0.5, 0.9]},
        "optimizer.lr": "logspace(1e-4, 1e-2, 3)",
    }
    searcher = build_searcher(plan_of(tmp_path, searcher="grid", num_trials=None, parameters=parameters).sweep)
    found = [tuple(searcher.suggest(number).items()) for number in range(searcher.size)]
    assert len(found) == len(set(found)) == 9
    assert searcher.suggest(9) is None


def test_optuna_learns(tmp_path):
    """Told that a learning rate of 1e-3 is best, it looks there."""
    sweep = plan_of(tmp_path, searcher="optuna", num_trials=40).sweep
    searcher, found = build_searcher(sweep), []
    import math

    for number in range(40):
        values = searcher.suggest(number)
        found.append(abs(math.log10(values["optimizer.lr"]) + 3))
        searcher.ended(number, found[-1] ** 2)
    assert sum(found[-10:]) < sum(found[:10])


def test_others_take_no_conditions_and_name_their_library(tmp_path):
    with pytest.raises(ConfigError, match="takes no parameters that depend on others"):
        build_searcher(plan_of(tmp_path, searcher="hyperopt", parameters=CONDITIONAL).sweep)
    with pytest.raises(ConfigError, match="needs a library"):
        build_searcher(plan_of(tmp_path, searcher="nevergrad").sweep)
