"""What may be tried, as it is written in a sweep file."""

from __future__ import annotations

import pytest

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.sweeps.space import active, read_space, read_values


def test_a_list_a_range_and_a_value():
    assert read_values([8, 16], where="x").choices == (8, 16)
    assert read_values("adamw", where="x").choices == ("adamw",)
    lr = read_values("loguniform(1e-5, 1e-3)", where="x")
    assert (lr.kind, lr.numbers, lr.is_log) == ("loguniform", (1e-5, 1e-3), True)
    assert read_values("logspace(1e-5, 1e-3, 3)", where="x").choices == (1e-5, 1e-4, 1e-3)
    assert read_values("choice(adam, sgd)", where="x").choices == ("adam", "sgd")


def test_ends_and_a_value_in_between_stand_for_a_range():
    low, middle, high = read_values("uniform(1, 9)", where="x").samples()
    assert (low, high) == (1, 9)
    assert middle != int(middle)
    assert read_values("randint(1, 9)", where="x").samples() == [1, 8], "Tune leaves the upper end out"
    assert read_values("qrandint(2, 8, 2)", where="x").samples() == [2, 8]


@pytest.mark.parametrize(
    ("value", "message"),
    {
        "logunifrm(1e-5, 1e-3)": "Did you mean loguniform",
        "loguniform(1e-5)": "takes 2 numbers, got 1",
        "loguniform(0, 1)": "begins above 0",
        "uniform(3, 1)": "lower end must be below",
        "uniform(a, b)": "takes numbers",
        "randint(1.5, 3)": "takes whole numbers",
        "loguniform(1e-5, 1e-3": "is not finished",
        "logspace(1, 10, 1)": "at least 2",
    }.items(),
)
def test_a_distribution_that_is_none(value, message):
    with pytest.raises(ConfigError, match=message):
        read_space({"optimizer.lr": value}, file="sweep.yaml")


def test_the_first_branch_that_holds_counts():
    space = read_space(
        {
            "optimizer.type": ["sgd", "adam", "adamw"],
            "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "values": [0.9]},
            "optimizer.lr": [
                {"when": {"optimizer.type": "sgd"}, "values": "loguniform(1e-2, 1)"},
                {"values": "loguniform(1e-5, 1e-3)"},
            ],
        },
        file="sweep.yaml",
    )
    assert active(space["optimizer.momentum"], {"optimizer.type": "adam"}) is None
    assert active(space["optimizer.lr"], {"optimizer.type": "sgd"}).numbers == (1e-2, 1)
    assert active(space["optimizer.lr"], {"optimizer.type": "adam"}).numbers == (1e-5, 1e-3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "parameters is missing or empty"),
        ({"batch_size": []}, "nothing to try"),
        ({"a": {"when": {"b": 1}, "values": [1]}}, "depends on b, which is no parameter above it"),
        ({"a": ["x"], "b": {"when": {"a": "y"}, "values": [1]}}, "a is never 'y'"),
        ({"a": {"when": {}, "values": [1], "else": 2}}, "'else' is not known here"),
        ({"batch_size": "same_as(batch)"}, "depends on batch"),
    ],
)
def test_a_space_that_is_none(raw, message):
    with pytest.raises(ConfigError, match=message):
        read_space(raw, file="sweep.yaml")
