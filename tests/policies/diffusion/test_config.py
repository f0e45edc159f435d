"""The diffusion policy's options: what is refused and what the refusal says."""

import json

import pytest

from lerobot_ray.config.encode import encode
from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.diffusion.config import DiffusionConfig

DEFAULTS = """
"horizon": 64, "n_action_steps": 32, "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION":
"MIN_MAX"}, "drop_n_last_frames": 7, "vision_backbone": "resnet18", "resize_shape": null, "crop_ratio": 1.0,
"crop_shape": null, "crop_is_random": true, "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
"use_group_norm": false, "spatial_softmax_num_keypoints": 32, "use_separate_rgb_encoder_per_camera": true, "down_dims":
[512, 1024, 2048], "kernel_size": 5, "n_groups": 8, "diffusion_step_embed_dim": 128, "use_film_scale_modulation": true,
"gradient_checkpointing": false, "noise_scheduler_type": "DDPM", "num_train_timesteps": 100, "beta_schedule":
"squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02, "prediction_type": "epsilon", "clip_sample": true,
"clip_sample_range": 1.0, "num_inference_steps": null, "compile_model": false, "compile_mode": "reduce-overhead",
"do_mask_loss_for_padding": false, "optimizer_lr": 0.0001, "optimizer_betas": [0.95, 0.999], "optimizer_eps": 1e-08,
"optimizer_weight_decay": 1e-06, "scheduler_name": "cosine", "scheduler_warmup_steps": 500
"""
"""As LeRobot 0.6.1 writes them, in order, after the keys all policies have."""

FRESH = {"pretrained_backbone_weights": None}


def test_defaults_and_order_are_lerobots():
    expected = json.loads(f"{{{DEFAULTS}}}")
    values = encode(DiffusionConfig())
    assert list(values)[-len(expected) :] == list(expected)
    assert {key: values[key] for key in expected} == expected
    assert values["n_obs_steps"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 60}, "horizon=60 is not divisible by 8, two to the number of levels in"),
        ({"horizon": 60}, "Try 64"),
        ({"prediction_type": "v_prediction"}, "prediction_type=v_prediction is not one of epsilon, sample"),
        ({"noise_scheduler_type": "PNDM"}, "noise_scheduler_type=PNDM is not one of DDPM, DDIM"),
        ({"beta_schedule": "squaredcos"}, "Did you mean squaredcos_cap_v2?"),
        ({"beta_schedule": "sigmoid", "noise_scheduler_type": "DDIM"}, "beta_schedule=sigmoid is not one DDIM has"),
        ({"crop_ratio": 0.0}, "crop_ratio=0 is not in (0, 1]"),
        ({"crop_ratio": 1.5}, "crop_ratio=1.5 is not in (0, 1]"),
        ({"crop_shape": (0, 4)}, "crop_shape=[0, 4] is not a height and a width"),
        ({"resize_shape": (4,)}, "resize_shape=[4] is not a height and a width"),
        ({"use_group_norm": True}, "cannot start from batch-norm weights"),
        ({"vision_backbone": "vit_b"}, "vision_backbone=vit_b is not a ResNet"),
        ({"down_dims": (30, 64, 64)}, "down_dims has 30, not divisible by policy.n_groups=8"),
        ({"num_inference_steps": 101}, "num_inference_steps=101 is not between 1 and policy.num_train_timesteps=100"),
    ],
)
def test_options_it_cannot_use(options, words):
    with pytest.raises(PolicyError) as caught:
        DiffusionConfig(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "crop"),
    [
        ({"resize_shape": (96, 100), "crop_ratio": 0.9}, (86, 90)),
        ({"resize_shape": (96, 100), "crop_shape": (84, 84)}, None),
        ({"crop_ratio": 0.9}, None),
        ({"crop_ratio": 0.9, "crop_shape": (84, 84)}, (84, 84)),
    ],
)
def test_crops_follow_the_resized_image(options, crop):
    assert DiffusionConfig(**options).crop_shape == crop


def features(**cameras):
    inputs = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, shape) for name, shape in cameras.items()}
    return inputs | {"observation.state": PolicyFeature(FeatureType.STATE, (2,))}


ACTION = {"action": PolicyFeature(FeatureType.ACTION, (2,))}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"input_features": features(a=(3, 64, 64), b=(3, 32, 64))},
            "observation.images.b is 3×32×64 but observation.images.a is 3×64×64",
        ),
        ({"input_features": features(a=(3, 64, 64)), "crop_shape": (84, 84)}, "crop_shape=[84, 84] is larger than"),
        ({"input_features": features()}, "needs a camera or observation.environment_state"),
        (
            {"input_features": {k: v for k, v in features(a=(3, 64, 64)).items() if "images" in k}},
            "needs observation.state",
        ),
        ({"input_features": features(a=(3, 64, 64)), "output_features": {}}, "needs an output named action"),
    ],
)
def test_features_it_cannot_use(config, words):
    with pytest.raises(PolicyError) as caught:
        DiffusionConfig(**{"output_features": ACTION} | config).validate_features()
    assert words in str(caught.value)


def test_presets_and_windows():
    config = DiffusionConfig()
    optimizer, schedule = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == (
        "adam",
        1e-4,
        (0.95, 0.999),
        1e-6,
    )
    assert (schedule.type, schedule.name, schedule.num_warmup_steps) == ("diffuser", "cosine", 500)
    assert config.observation_delta_indices == [-1, 0]
    assert config.action_delta_indices == list(range(-1, 63))
    assert DiffusionConfig(n_obs_steps=3).action_delta_indices[0] == -2
