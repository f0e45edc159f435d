"""Playing episodes: what comes out depends on nothing but the policy and the episode's seed."""

from __future__ import annotations

import dataclasses

import av
import pytest

from lerobot_ray.core.errors import EnvError, PolicyError
from lerobot_ray.envs.rollout import default_batch_size, play
from lerobot_ray.envs.summary import summarise
from tests.envs.actors_for_tests import IN_NUMBERS, Expert, Random, unchanged


def results(policy, episodes, **options):
    options = {"seed": 100, "batch_size": 1, "use_async_envs": False, **options}
    return play(IN_NUMBERS, policy, unchanged, unchanged, episodes=episodes, **options)


def test_the_expert_scores_100_and_a_random_policy_next_to_nothing():
    expert, random = summarise(results(Expert(), range(50))).overall, summarise(results(Random(), range(50))).overall
    assert expert.pc_success == 100
    assert random.pc_success < 15
    assert expert.avg_sum_reward > random.avg_sum_reward + 20
    assert expert.avg_length < 40 < random.avg_length <= 60


@pytest.mark.parametrize(("batch_size", "use_async_envs"), [(3, False), (8, False), (2, True)])
def test_results_do_not_depend_on_how_episodes_are_played(batch_size, use_async_envs):
    alone = results(Random(), range(8))
    together = results(Random(), range(8), batch_size=batch_size, use_async_envs=use_async_envs)
    assert together == alone


def test_results_do_not_depend_on_which_episodes_are_played_here():
    alone = {result.episode: result for result in results(Random(), range(8))}
    split = [*results(Random(), [5, 2, 7], batch_size=2), *results(Random(), [1, 0]), *results(Random(), [3, 6, 4])]
    assert {result.episode: result for result in split} == alone
    assert [result.episode for result in split] == [5, 2, 7, 1, 0, 3, 6, 4]
    assert all(result.seed == 100 + result.episode for result in split)


def test_another_seed_is_another_evaluation():
    assert [r.sum_reward for r in results(Random(), [0, 1])] != [
        r.sum_reward for r in results(Random(), [0, 1], seed=7)
    ]
    # seeds belong to episodes: episode 1 of seed 100 is episode 0 of seed 101
    one, zero = results(Expert(), [1], seed=100)[0], results(Expert(), [0], seed=101)[0]
    assert dataclasses.replace(one, episode=0) == zero


def test_results_arrive_as_episodes_end():
    seen = []
    returned = results(Expert(), [3, 1, 2], batch_size=2, on_episode=seen.append)
    assert sorted(seen, key=lambda r: r.episode) == sorted(returned, key=lambda r: r.episode)


def test_videos_play(tmp_path):
    played = results(Expert(), range(4), batch_size=2, video_dir=tmp_path, videos=2)
    assert [result.video is not None for result in played] == [True, True, False, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval_episode_0.mp4", "eval_episode_1.mp4"]
    for result in played[:2]:
        with av.open(result.video) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert container.streams.video[0].average_rate == 10
        assert len(pictures) == result.length + 1
        assert abs(pictures[0].astype(int) - pictures[-1]).max() > 60  # the arm has moved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": []}, "no episodes"),
        ({"episodes": [1, 1]}, "played twice"),
        ({"episodes": [-1]}, "numbered from 0"),
        ({"episodes": [0], "env_timeout_s": 0}, "env_timeout_s"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(EnvError, match=message):
        results(Expert(), **options)


def test_a_policy_that_cannot_act_is_refused_before_anything_is_played():
    class Mute:
        config = Expert().config

    with pytest.raises(PolicyError, match="has no select_action"):
        results(Mute(), [0])


def test_default_batch_size_is_at_least_one_and_at_most_the_episodes():
    assert default_batch_size(1) == 1
    assert 1 <= default_batch_size(1000) <= 64
