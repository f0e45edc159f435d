"""A policy in the middle of an episode: nobody else's draws, queues or precision get into it."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.types import ACTION, OBS_ENV_STATE, OBS_STATE, FeatureType, PolicyFeature
from lerobot_ray.envs.player import Player, to_batch
from lerobot_ray.envs.rollout import play
from lerobot_ray.policies.diffusion.config import DiffusionConfig
from lerobot_ray.policies.diffusion.policy import DiffusionPolicy
from tests.envs.actors_for_tests import IN_NUMBERS, Random, unchanged

SHORT = dataclasses.replace(IN_NUMBERS, episode_length=12)
SEEN = {OBS_STATE: np.zeros(2, dtype=np.float32), OBS_ENV_STATE: np.zeros(2, dtype=np.float32)}


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks are quicker on one, above all where others want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def diffusion() -> DiffusionPolicy:
    """A small one without a camera, noise in every one of its sampling steps."""
    config = DiffusionConfig(
        input_features={
            OBS_STATE: PolicyFeature(FeatureType.STATE, (2,)),
            OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (2,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        horizon=8,
        n_action_steps=4,
        down_dims=(16, 32),
        n_groups=4,
        diffusion_step_embed_dim=16,
        num_train_timesteps=3,
        device="cpu",
    )
    torch.manual_seed(0)
    return DiffusionPolicy(config).eval()


def returns(policy, episodes, **options):
    options = {"seed": 9, "batch_size": 1, "use_async_envs": False, **options}
    played = play(SHORT, policy, unchanged, unchanged, episodes=episodes, **options)
    return {result.episode: result.sum_reward for result in played}


def test_each_episode_has_its_own_noise_however_the_policy_is_asked():
    policy = diffusion()
    alone = returns(policy, range(5))
    assert len(set(alone.values())) == 5
    assert returns(policy, range(5), batch_size=3) == alone
    assert returns(policy, [4, 2], batch_size=2) == {number: alone[number] for number in (4, 2)}
    for batch_size, episodes in ((5, range(5)), (3, [4, 0, 3, 1])):  # rows of larger products: equal but for rounding
        together = returns(policy, episodes, batch_size=batch_size, batch_policy=True)
        assert together == {number: pytest.approx(alone[number], rel=1e-3) for number in episodes}


def test_draws_of_a_policy_leave_the_process_as_it_was():
    player = Player(Random(), unchanged, unchanged)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    player.begin([3])
    player.act([SEEN], "")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_draws_follow_from_the_seed_alone():
    one, other = Player(Random(), unchanged, unchanged), Player(Random(), unchanged, unchanged)
    one.begin([3])
    expected = [one.act([SEEN], "").tolist() for _ in range(3)]
    torch.manual_seed(77)
    other.begin([3])
    seen = []
    for _ in range(3):
        torch.rand(5)
        seen.append(other.act([SEEN], "").tolist())
    assert seen == expected


def test_another_player_shares_weights_and_nothing_else():
    policy = diffusion()
    player = Player(policy, unchanged, unchanged)
    other = player.another()
    copied = other._parts[0]
    assert all(a is b for a, b in zip(policy.parameters(), copied.parameters(), strict=True))
    player.begin([1])
    player.act([SEEN], "")
    assert policy._actions
    assert not copied._actions


def test_a_policy_that_cannot_be_copied_may_still_play_alone():
    class Locked(Random):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle '_thread.lock' object")

    with pytest.raises(PolicyError, match=r"cannot be copied.*--eval.batch_size=1"):
        returns(Locked(), [0, 1], batch_size=2)
    assert len(returns(Locked(), [0, 1])) == 2


def test_an_action_of_the_wrong_shape_is_an_error():
    class Flat(Random):
        def select_action(self, batch):
            return super().select_action(batch)[0]

    with pytest.raises(PolicyError, match=r"Flat.select_action gave \[2\] for 1 observations"):
        returns(Flat(), [0])


def test_pictures_become_what_a_policy_is_trained_on():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    batch = to_batch([{"observation.images.top": pixels, OBS_STATE: np.ones(2, dtype=np.float32)}] * 2)
    assert batch["observation.images.top"].shape == (2, 3, 2, 3)
    assert batch["observation.images.top"].dtype == torch.float32
    assert torch.equal(batch["observation.images.top"][1, 2], torch.from_numpy(pixels[..., 2]).float() / 255)
    assert batch[OBS_STATE].shape == (2, 2)
