"""The built-in environment: what the demo and the tests rely on."""

import numpy as np
import pytest

from lerobot_ray.envs.reach import ReachEnv, expert_action, tip_xy


def play(env: ReachEnv, seed: int, act) -> tuple[bool, list]:
    observation, _ = env.reset(seed=seed)
    frames = [observation["pixels"]]
    for _ in range(env.max_episode_steps):
        observation, _, success, truncated, info = env.step(act(env))
        frames.append(observation["pixels"])
        if success or truncated:
            return info["is_success"], frames
    raise AssertionError("an episode outlived max_episode_steps")


def test_the_expert_solves_every_episode():
    env = ReachEnv(image_hw=(16, 16))
    assert all(play(env, seed, lambda env: expert_action(env.state))[0] for seed in range(200))


def test_doing_nothing_or_anything_fails():
    env = ReachEnv(image_hw=(16, 16))
    generator = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    assert not any(play(env, seed, lambda env: env.state.joints)[0] for seed in range(30))
    assert sum(play(env, seed, lambda env: generator.uniform(low, high))[0] for seed in range(50)) <= 3


def test_a_seed_fixes_the_whole_episode():
    first = play(ReachEnv(), 7, lambda env: expert_action(env.state))[1]
    again = play(ReachEnv(), 7, lambda env: expert_action(env.state))[1]
    other = play(ReachEnv(), 8, lambda env: expert_action(env.state))[1]
    assert len(first) == len(again)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_the_picture_shows_the_target_and_the_tip():
    env = ReachEnv(image_hw=(96, 96))
    env.reset(seed=3)
    picture = env.render()

    def pixel(xy):
        return picture[int((1 - xy[1]) / 2 * 96), int((xy[0] + 1) / 2 * 96)].astype(int)

    red, green, _ = pixel(env.state.target_xy)
    assert red > 180
    assert green < 110
    assert np.abs(pixel(tip_xy(env.state.joints)) - [240, 180, 41]).max() < 30


def test_actions_outside_the_joint_range_are_clipped():
    env = ReachEnv(image_hw=(16, 16))
    env.reset(seed=0)
    for _ in range(60):
        env.step(np.array([99.0, -99.0]))
    assert env.state.joints == pytest.approx([env.action_space.high[0], env.action_space.low[1]])


def test_without_a_camera_it_tells_where_the_target_is():
    env = ReachEnv(obs_type="environment_state_agent_pos")
    observation, _ = env.reset(seed=4)
    assert set(observation) == {"agent_pos", "environment_state"}
    assert observation["environment_state"] == pytest.approx(env.state.target_xy)
    assert env.observation_space.contains(observation)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")  # joint angles are what they are
def test_gymnasium_accepts_it():
    from gymnasium.utils.env_checker import check_env

    check_env(ReachEnv(image_hw=(32, 32)), skip_render_check=True)
