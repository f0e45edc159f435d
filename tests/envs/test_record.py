"""Rollouts as datasets: what was played is what is read back, whoever played it."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot_ray import dataset
from lerobot_ray.config.env import ReachEnvConfig
from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.dataset import Dataset
from lerobot_ray.envs.record import join_recording
from lerobot_ray.envs.rollout import play
from tests.envs.actors_for_tests import IN_NUMBERS, Blind, Expert, unchanged

SEEN = ReachEnvConfig(observation_height=32, observation_width=48, episode_length=12)


def record(folder, episodes, *, env=IN_NUMBERS, policy=None, **options):
    options = {"batch_size": 1, "use_async_envs": False, "seed": 3, **options}
    policy = policy or Expert()
    return play(env, policy, unchanged, unchanged, episodes=episodes, recording=folder, **options)


def rows(root):
    return pq.read_table(root / "data", partitioning=None)


def test_recorded_rollouts_are_a_valid_dataset(tmp_path, capsys):
    root = tmp_path / "rollouts"
    results = record(root, range(3), env=SEEN, policy=Blind(), batch_size=2)
    assert join_recording(root, repo_id="me/rollouts") == 3
    assert dataset.main(["validate", str(root)]) == 0, capsys.readouterr().out
    assert np.bincount(rows(root)["episode_index"]).tolist() == [result.length for result in results]
    read = Dataset("me/rollouts", root=root)
    first = read[0]
    assert tuple(first["observation.images.top"].shape) == (3, 32, 48)
    assert first["task"] == "touch the red disc"
    ends = [bool(item["next.done"]) for item in (read[i] for i in range(len(read)))]
    assert ends == [i + 1 in np.cumsum([r.length for r in results]) for i in range(len(read))]
    returns = [float(rows(root).slice(0, results[0].length)["next.reward"].to_numpy().sum())]
    assert returns[0] == pytest.approx(results[0].sum_reward, rel=1e-5)


def test_who_plays_an_episode_does_not_show_in_the_dataset(tmp_path):
    record(tmp_path / "one", range(4))
    for episodes in ([3], [0, 2], [1]):
        record(tmp_path / "many", episodes, batch_size=2)
    for name in ("one", "many"):
        join_recording(tmp_path / name, repo_id="me/rollouts")
    assert rows(tmp_path / "one").equals(rows(tmp_path / "many"))


def test_an_episode_played_again_replaces_itself(tmp_path):
    record(tmp_path, [0, 1])
    record(tmp_path, [1])
    assert join_recording(tmp_path, repo_id="me/rollouts") == 2


def test_joining_nothing_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="no saved episode"):
        join_recording(tmp_path, repo_id="me/rollouts")
