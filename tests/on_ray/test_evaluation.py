"""Rollouts over actors: the number of actors and their deaths do not show in the results."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from lerobot_ray.config.env import GymEnvConfig, ReachEnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.core.errors import ConfigError, EnvError
from lerobot_ray.on_ray.evaluation import Evaluation, EvaluationPlan, portions
from lerobot_ray.on_ray.rollout_actor import PolicySource
from lerobot_ray.on_ray.rollout_check import check_room
from lerobot_ray.on_ray.rollout_pool import RolloutPool
from tests.on_ray.rollout_node import whole_episodes
from tests.on_ray.runs import wait_until
from tests.reach_policy import save_reach_policy

ENV = ReachEnvConfig(obs_type="environment_state_agent_pos", episode_length=12)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_reach_policy(tmp_path_factory.mktemp("policy") / "pretrained_model")


def plan_of(policy, *, actors=1, episodes=8, env=ENV, **settings) -> EvaluationPlan:
    return EvaluationPlan(
        name="test",
        policy=PolicySource(folder=policy),
        env=env,
        eval=EvalConfig(n_episodes=episodes, use_async_envs=False, videos=0, **settings),
        seed=7,
        num_actors=actors,
        video_dir=policy.parent / "videos",
    )


def play(plan, *, after_start=lambda pool: None) -> Evaluation:
    run = Evaluation(plan)
    with RolloutPool(num_actors=plan.num_actors, resources={"CPU": 0.5}) as pool:
        for portion in portions(plan):
            pool.submit(portion)
        after_start(pool)

        def is_over() -> bool:
            for news in pool.poll(0.1):
                run.add(news)
            return run.is_over

        wait_until(is_over, within_s=180)
    return run


@pytest.mark.parametrize("actors", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [0, 1, 3])
def test_every_episode_is_in_one_portion(policy, actors, batch_size):
    plan = plan_of(policy, actors=actors, episodes=11, batch_size=batch_size)
    cut = portions(plan)
    assert sorted(episode for portion in cut for episode in portion.episodes) == list(range(11))
    assert len(cut) >= min(actors, 11 // 3)


@pytest.fixture(scope="module")
def alone(policy, ray_cluster) -> Evaluation:
    """What one actor makes of it."""
    return play(plan_of(policy))


@pytest.mark.ray
def test_the_number_of_actors_does_not_show(policy, alone):
    several = play(plan_of(policy, actors=4))
    assert several.info()["episodes"] == alone.info()["episodes"]
    assert len({episode["sum_reward"] for episode in alone.info()["episodes"]}) == 8  # not all the same by chance


@pytest.mark.ray
def test_a_killed_actor_changes_nothing(policy, alone):
    import ray

    def kill_one(pool) -> None:
        pool.poll()
        ray.kill(pool._seats[0].actor)

    assert play(plan_of(policy, actors=2), after_start=kill_one).info()["episodes"] == alone.info()["episodes"]


@pytest.mark.ray
def test_an_episode_that_kills_its_actors_is_reported_and_the_others_are_played(policy, ray_cluster):
    env = GymEnvConfig(task="tests.on_ray.dying_env:Dying-v0", kwargs={"deadly_seeds": [9]})
    info = play(plan_of(policy, env=env, episodes=4)).info()
    assert [bool(episode["error"]) for episode in info["episodes"]] == [False, False, True, False]
    assert "lost" in info["episodes"][2]["error"]
    assert info["overall"]["n_failed"] == 1
    assert info["overall"]["n_success"] == 3


@pytest.mark.ray
def test_an_error_of_the_policy_ends_the_evaluation_and_is_itself(policy, ray_cluster, tmp_path):
    other = save_reach_policy(tmp_path / "pretrained_model", state_size=3)
    run = play(plan_of(other))
    assert isinstance(run.error, EnvError)
    assert "observation.state" in str(run.error)
    assert run.num_done == 0


@pytest.mark.ray
@pytest.mark.slow
def test_a_lost_node_changes_nothing(policy, ray_cluster, request):
    script = [sys.executable, "-m", "tests.on_ray.rollout_node", str(policy)]
    done = subprocess.run(script, cwd=request.config.rootpath, capture_output=True, text=True, timeout=500, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("EPISODES ")]
    assert found, done.stdout[-1000:] + done.stderr[-2000:]
    assert "played again" in done.stderr
    assert json.loads(found[0][9:]) == play(whole_episodes(policy)).info()["episodes"]


def test_an_actor_that_fits_no_node_is_refused():
    config = EvalConfig(resources_per_actor={"CPU": 1, "GPU": 0.5})
    with pytest.raises(ConfigError, match=r"0\.5 GPU fits no node"):
        check_room(config, [{"CPU": 8.0}])
    check_room(config, [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}])
    check_room(dataclasses.replace(config, resources_per_actor=None), [{"CPU": 1.0}])
