"""eval_info.json: LeRobot's layout, our episodes beside it."""

from __future__ import annotations

import json

import pytest

from lerobot_ray.core.errors import EnvError
from lerobot_ray.envs.eval_info import eval_info, load_info, metrics_of, results_of, save_info, sentence_of
from lerobot_ray.envs.result import EpisodeResult


def episode(number, success, task="a", **more):
    return EpisodeResult(
        episode=number,
        seed=number,
        task=task,
        success=success,
        sum_reward=1.0 + number,
        max_reward=1.0,
        length=5,
        **more,
    )


def test_numbers_are_lerobots_and_round_trip(tmp_path):
    played = [episode(0, True, video="a.mp4"), episode(1, False), episode(0, True, task="b")]
    failed = episode(1, None, task="b", error="it hung")
    info = eval_info([*played, failed], env_type="suite", seconds=8.0, about={"step": 4})
    assert info["overall"]["pc_success"] == pytest.approx(200 / 3)
    assert info["overall"]["avg_sum_reward"] == pytest.approx(4 / 3)
    assert info["overall"]["eval_ep_s"] == 2.0
    assert info["overall"]["video_paths"] == ["a.mp4"]
    assert [task["metrics"]["successes"] for task in info["per_task"]] == [[True, False], [True]]
    assert {task["task_group"] for task in info["per_task"]} == set(info["per_group"]) == {"suite"}
    assert metrics_of(info)["eval/pc_success/b"] == 100.0
    assert metrics_of(info)["eval/failed_episodes"] == 1.0
    assert "3 episodes" in sentence_of(info)
    assert "1 could not be played" in sentence_of(info)
    save_info(info, tmp_path / "eval_info.json")
    assert load_info(tmp_path / "eval_info.json") == json.loads(json.dumps(info))
    assert results_of(info) == [*played, failed]


def test_without_a_success_signal():
    info = eval_info([episode(0, None)], env_type="walk", seconds=1.0)
    assert info["overall"]["pc_success"] is None
    assert "eval/pc_success" not in metrics_of(info)
    assert "mean return 1" in sentence_of(info)


def test_another_document_is_refused(tmp_path):
    (tmp_path / "eval_info.json").write_text("[]")
    with pytest.raises(EnvError, match="does not hold an evaluation"):
        load_info(tmp_path / "eval_info.json")
