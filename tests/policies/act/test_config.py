"""ACT's options: what is refused and what the refusal says."""

import json

import pytest

from lerobot_ray.config.encode import encode
from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.act.config import ACTConfig

DEFAULTS = """
"chunk_size": 100, "n_action_steps": 100, "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION":
"MEAN_STD"}, "vision_backbone": "resnet18", "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
"replace_final_stride_with_dilation": false, "pre_norm": false, "dim_model": 512, "n_heads": 8, "dim_feedforward": 3200,
"feedforward_activation": "relu", "n_encoder_layers": 4, "n_decoder_layers": 1, "use_vae": true, "latent_dim": 32,
"n_vae_encoder_layers": 4, "temporal_ensemble_coeff": null, "dropout": 0.1, "kl_weight": 10.0, "optimizer_lr": 1e-05,
"optimizer_weight_decay": 0.0001, "optimizer_lr_backbone": 1e-05
"""
"""As LeRobot 0.6.1 writes them, in order, after the keys all policies have."""


def test_defaults_and_order_are_lerobots():
    expected = json.loads(f"{{{DEFAULTS}}}")
    values = encode(ACTConfig())
    assert list(values)[-len(expected) :] == list(expected)
    assert {key: values[key] for key in expected} == expected
    assert values["type"] == "act"
    assert values["n_obs_steps"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_obs_steps": 2}, "n_obs_steps=2"),
        ({"n_action_steps": 101}, "n_action_steps=101 is more than policy.chunk_size=100"),
        ({"temporal_ensemble_coeff": 0.1}, "n_action_steps=100. Set n_action_steps to 1"),
        ({"vision_backbone": "vit_b"}, "vision_backbone=vit_b is not a ResNet"),
        ({"feedforward_activation": "glu"}, "feedforward_activation=glu is not one of relu, gelu"),
        ({"dim_model": 100}, "dim_model=100 is not divisible by policy.n_heads=8"),
    ],
)
def test_options_it_cannot_use(options, words):
    with pytest.raises(PolicyError) as caught:
        ACTConfig(**options)
    assert words in str(caught.value)


def test_features_it_cannot_use():
    state = {"observation.state": PolicyFeature(FeatureType.STATE, (4,))}
    camera = {"observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 64, 96))}
    action = {"action": PolicyFeature(FeatureType.ACTION, (4,))}
    with pytest.raises(PolicyError, match=r"needs a camera or observation\.environment_state .* observation\.state\."):
        ACTConfig(input_features=state, output_features=action).validate_features()
    with pytest.raises(PolicyError, match=r"needs an output named action; the outputs are action\.arm"):
        ACTConfig(input_features=camera, output_features={"action.arm": action["action"]}).validate_features()
    ACTConfig(input_features=camera | state, output_features=action).validate_features()


def test_presets():
    config = ACTConfig(optimizer_lr=3e-5, optimizer_weight_decay=0.5)
    preset = config.get_optimizer_preset()
    assert (preset.type, preset.lr, preset.weight_decay, preset.grad_clip_norm) == ("adamw", 3e-5, 0.5, 10.0)
    assert config.get_scheduler_preset() is None
    assert config.observation_delta_indices is None
    assert config.action_delta_indices == list(range(100))
