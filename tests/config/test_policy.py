from __future__ import annotations

import json
from pathlib import Path

import pytest

from lerobot_ray.config.policy_file import find_policy_folder, load_policy_config, save_policy_config
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.act.config import ACTConfig

BY_LEROBOT = sorted((Path(__file__).parent / "lerobot_0_6_1").iterdir())
COMMON = (
    "type n_obs_steps input_features output_features device use_amp use_peft push_to_hub repo_id private tags license "
    "pretrained_path pretrained_revision"
)


@pytest.mark.parametrize("folder", BY_LEROBOT, ids=lambda folder: folder.name)
def test_a_file_of_lerobot_is_written_back_to_the_byte(folder, tmp_path):
    save_policy_config(load_policy_config(folder), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_features_come_back_as_they_were(tmp_path):
    policy = ACTConfig(
        input_features={
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 64, 96)),
            "observation.state": PolicyFeature(FeatureType.STATE, (4,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
        tags=["a"],
    )
    save_policy_config(policy, tmp_path)
    assert load_policy_config(tmp_path) == policy
    values = json.loads((tmp_path / "config.json").read_text())
    assert " ".join(list(values)[:14]) == COMMON
    assert values["input_features"]["observation.images.front"] == {"type": "VISUAL", "shape": [3, 64, 96]}


def test_missing_keys_take_defaults_and_unknown_ones_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"type": "act", "chunk_size": 20, "n_action_steps": 20}')
    assert load_policy_config(tmp_path) == ACTConfig(chunk_size=20, n_action_steps=20)
    (tmp_path / "config.json").write_text('{"type": "act", "chunk_sise": 20}')
    with pytest.raises(
        ConfigError, match=r"config.json: chunk_sise: there is no such setting. Did you mean chunk_size\?"
    ):
        load_policy_config(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 20}')
    with pytest.raises(ConfigError, match="does not name a policy type"):
        load_policy_config(tmp_path)
    with pytest.raises(ConfigError, match="is not there"):
        load_policy_config(tmp_path / "nowhere")


def test_roles_of_features():
    policy = ACTConfig(
        input_features={
            "observation.images.b": PolicyFeature(FeatureType.VISUAL, (3, 8, 8)),
            "observation.images.a": PolicyFeature(FeatureType.VISUAL, (3, 8, 8)),
            "observation.state.extra": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (5,)),
        },
        output_features={"action.other": PolicyFeature(FeatureType.ACTION, (1,))},
    )
    assert list(policy.image_features) == ["observation.images.b", "observation.images.a"]
    assert policy.env_state_feature == PolicyFeature(FeatureType.ENV, (5,))
    assert policy.robot_state_feature is None  # only the one named exactly observation.state
    assert policy.action_feature is None
    policy.input_features["observation.state"] = PolicyFeature(FeatureType.STATE, (3,))
    policy.output_features["action"] = PolicyFeature(FeatureType.ACTION, (4,))
    assert policy.robot_state_feature.shape == (3,)
    assert policy.action_feature.shape == (4,)


def test_no_features_at_all():
    policy = ACTConfig(input_features=None, output_features=None)
    assert (policy.image_features, policy.robot_state_feature, policy.action_feature) == ({}, None, None)


def test_finding_the_folder(tmp_path):
    assert find_policy_folder(tmp_path) is None
    folder = tmp_path / "checkpoints" / "last" / "pretrained_model"
    save_policy_config(ACTConfig(), folder)
    for path in (folder, folder.parent, tmp_path):
        assert find_policy_folder(path) == folder
