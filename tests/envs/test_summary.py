"""From episodes to numbers."""

from __future__ import annotations

import pytest

from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.envs.summary import summarise, wilson_interval


def episode(number, success, *, task="reach", error=None, reward=1.0, length=10):
    return EpisodeResult(number, number, task, success, reward, reward, length, error=error)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),  # Newcombe (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5.1e-5)


def test_per_task_and_overall():
    results = [episode(0, True), episode(1, False, reward=3.0), episode(0, True, task="push", length=20)]
    summary = summarise(results)
    assert list(summary.per_task) == ["reach", "push"]
    assert summary.per_task["reach"].pc_success == 50
    assert summary.per_task["reach"].avg_sum_reward == 2.0
    assert summary.overall.pc_success == pytest.approx(200 / 3)
    assert summary.overall.avg_length == pytest.approx(40 / 3)
    assert summarise(reversed(results)).overall == summary.overall


def test_failed_episodes_are_counted_apart():
    overall = summarise([episode(0, True), episode(1, None, error="it hung", reward=-99.0)]).overall
    assert (overall.n_episodes, overall.n_failed, overall.pc_success, overall.avg_sum_reward) == (1, 1, 100, 1.0)


def test_nothing_is_made_up_where_nothing_is_known():
    nothing = summarise([]).overall
    assert (nothing.n_episodes, nothing.pc_success, nothing.avg_sum_reward) == (0, None, None)
    silent = summarise([episode(0, None)]).overall
    assert (silent.n_episodes, silent.pc_success, silent.pc_success_interval) == (1, None, None)
