"""What does not fit is one clear error before anything is played."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from lerobot_ray.config.env import AlohaEnvConfig, GymEnvConfig, PushtEnvConfig, ReachEnvConfig
from lerobot_ray.core.errors import EnvError, PolicyError
from lerobot_ray.core.types import ACTION, OBS_STATE, FeatureType, PolicyFeature
from lerobot_ray.envs.fit import check_policy_fits
from lerobot_ray.envs.hosts import spec_of
from lerobot_ray.envs.make import tasks_of
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.protocol import PretrainedPolicy

TOP = "observation.images.top"
FOR_TESTS = "tests.envs.envs_for_tests:lerobot_ray_tests"


def act(camera=TOP, hw=(96, 96), state=2, action=2) -> ACTConfig:
    return ACTConfig(
        input_features={
            camera: PolicyFeature(FeatureType.VISUAL, (3, *hw)),
            OBS_STATE: PolicyFeature(FeatureType.STATE, (state,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (action,))},
    )


def test_what_fits_is_described():
    spec = check_policy_fits(ReachEnvConfig(), act())
    assert spec.features[TOP] == PolicyFeature(FeatureType.VISUAL, (3, 96, 96))
    assert spec.step_limit == 60
    assert spec.prompt == "touch the red disc"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (act(camera="observation.images.wrist"), r"reads observation.images.wrist.*--rename_map='\{\"observation.imag"),
        (act(state=6), r"observation.state has shape \[2\].*reads \[6\].*another robot"),
        (act(action=7), "predicts 7 numbers per action, environment reach takes 2"),
        (act(hw=(48, 64)), "--env.observation_width=64 --env.observation_height=48"),
    ],
)
def test_what_does_not_fit(policy, message):
    with pytest.raises(EnvError, match=message):
        check_policy_fits(ReachEnvConfig(), policy)


def test_the_sizes_that_the_message_names_help():
    check_policy_fits(ReachEnvConfig(observation_width=64, observation_height=48), act(hw=(48, 64)))


def test_the_rename_map_that_the_message_names_helps():
    wrist = act(camera="observation.images.wrist")
    check_policy_fits(ReachEnvConfig(), wrist, rename_map={TOP: "observation.images.wrist"})


def test_a_policy_of_another_package_may_go_without_some_cameras(caplog):
    policy = act()
    policy.input_features["observation.images.wrist"] = PolicyFeature(FeatureType.VISUAL, (3, 96, 96))

    class Other(ACTConfig):
        type = "smolvla"

    other = Other(input_features=policy.input_features, output_features=policy.output_features)
    with caplog.at_level(logging.WARNING):
        check_policy_fits(ReachEnvConfig(), other, policy_class=Acts)
    assert "observation.images.wrist" in caplog.text


class Acts:
    def select_action(self, batch):
        raise AssertionError("not asked here")


class Mute(PretrainedPolicy):
    """Inherits the method that says it is missing."""


@pytest.mark.parametrize("policy_class", [Mute, object])
def test_a_policy_without_select_action(policy_class):
    with pytest.raises(PolicyError, match=r"cannot act: \w+ has no select_action"):
        check_policy_fits(ReachEnvConfig(), act(), policy_class=policy_class)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (GymEnvConfig(task=f"{FOR_TESTS}/Discrete-v0"), r"takes actions from Discrete\(3\)"),
        (GymEnvConfig(task=f"{FOR_TESTS}/Endless-v0"), "may go on for ever.*env.episode_length"),
        (GymEnvConfig(task=f"{FOR_TESTS}/Trubled-v0"), "Did you mean lerobot_ray_tests/Troubled-v0"),
        (GymEnvConfig(task="no_such_package:Arm-v0"), "needs no_such_package, which cannot be imported"),
        (GymEnvConfig(), "needs the environment's id"),
        (GymEnvConfig(task=f"{FOR_TESTS}/Troubled-v0", kwargs={"colour": "red"}), "cannot be built with"),
        (
            GymEnvConfig(task=f"{FOR_TESTS}/Troubled-v0", features_map={"agent_posn": "observation.state"}),
            "names agent_posn, which .* does not give. Did you mean agent_pos?",
        ),
        (
            GymEnvConfig(
                task=f"{FOR_TESTS}/Troubled-v0", features_map=dict.fromkeys(("agent_pos", "inner/speed"), OBS_STATE)
            ),
            "calls both agent_pos and inner/speed",
        ),
        (GymEnvConfig(task=f"{FOR_TESTS}/Troubled-v0", features_map={"agent_pos": "state"}), "begins observation"),
        (ReachEnvConfig(obs_type="pixels"), "env.obs_type=pixels is not one that reach has"),
        (ReachEnvConfig(task="grasp"), "env.type=reach has no task grasp"),
    ],
)
def test_environments_that_cannot_be_used(env, message):
    with pytest.raises(EnvError, match=message):
        spec_of(env)


@pytest.mark.parametrize(("env", "extra"), [(PushtEnvConfig(), "pusht"), (AlohaEnvConfig(), "aloha")])
def test_a_package_that_is_missing_is_named_with_its_extra(env, extra):
    try:
        __import__(f"gym_{extra}")
    except ImportError:
        with pytest.raises(EnvError, match=rf"pip install 'lerobot-ray\[{extra}\]'"):
            spec_of(env)
    else:
        assert spec_of(env).features[ACTION].shape == {"pusht": (2,), "aloha": (14,)}[extra]


def test_keys_follow_the_map_then_gyms_habits():
    env = GymEnvConfig(task=f"{FOR_TESTS}/Troubled-v0", features_map={"inner/speed": "observation.speed"})
    env = dataclasses.replace(env, features_map={**env.features_map, "render": TOP})
    spec = spec_of(env)
    assert {key: feature.shape for key, feature in spec.features.items()} == {
        "observation.state": (2,),
        "observation.speed": (3,),
        TOP: (3, 15, 21),
        ACTION: (2,),
    }


def test_several_tasks_are_several_environments():
    assert [env.task for env in tasks_of(AlohaEnvConfig(task="AlohaInsertion-v0, AlohaTransferCube-v0"))] == [
        "AlohaInsertion-v0",
        "AlohaTransferCube-v0",
    ]
    assert tasks_of(ReachEnvConfig()) == [ReachEnvConfig()]
    with pytest.raises(EnvError, match="names a task twice"):
        tasks_of(AlohaEnvConfig(task="A,A"))
    with pytest.raises(EnvError, match="several tasks"):
        spec_of(ReachEnvConfig(task="reach,reach2"))
