"""The same policy in PushT, played by lerobot-eval and here: the same seeds bring the same rewards.

Both interpreters need gym-pusht.
"""

from __future__ import annotations

import json

import pytest

from lerobot_ray.checkpoint.policy_folder import load_policy
from lerobot_ray.config.env import PushtEnvConfig
from lerobot_ray.envs.rollout import play
from tests.parity.peer import peer_has, run_lerobot
from tests.pusht_policy import save_pusht_policy
from tests.reach_policy import TINY

pytestmark = [pytest.mark.lerobot, pytest.mark.slow]

SEED, EPISODES, STEPS = 1000, 6, 100


def test_the_same_rewards(tmp_path):
    pytest.importorskip("gym_pusht")
    if not peer_has("gym_pusht"):
        pytest.skip("the peer has no gym-pusht")
    folder = save_pusht_policy(tmp_path / "policy", **TINY)
    run_lerobot(
        "eval", policy__path=folder, policy__device="cpu", env__type="pusht", env__episode_length=STEPS,
        env__observation_height=96, env__observation_width=96, eval__n_episodes=EPISODES, eval__batch_size=1,
        eval__use_async_envs="false", seed=SEED, output_dir=tmp_path / "there",
    )  # fmt: skip
    (theirs,) = json.loads((tmp_path / "there" / "eval_info.json").read_text())["per_task"]

    loaded = load_policy(folder)
    env = PushtEnvConfig(observation_height=96, observation_width=96, episode_length=STEPS)
    parts = (loaded.policy, loaded.preprocessor, loaded.postprocessor)
    ours = play(env, *parts, episodes=range(EPISODES), seed=SEED, batch_size=1, use_async_envs=False)
    assert [result.length for result in ours] == [STEPS] * EPISODES
    sums = theirs["metrics"]["sum_rewards"]  # of the same numbers, added up in another order
    assert [result.sum_reward for result in ours] == pytest.approx(sums, rel=1e-12, abs=1e-12)
    assert [result.max_reward for result in ours] == theirs["metrics"]["max_rewards"]
    assert len({result.sum_reward for result in ours}) > 1, "the pusher met the block at least once"
