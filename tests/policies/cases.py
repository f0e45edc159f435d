"""Small policies that the goldens are made of: options, features, and inputs, the same under LeRobot and here.

Imports torch and nothing else, so that `make_policy_goldens.py` can use it under LeRobot's interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .reference import last_padded, wave

BATCH = 2
OPTIMIZER_STEPS = 10
ROLLOUT_STEPS = 6
LEARNING_RATE = 1e-3
ADAM_EPS = 1e-3
"""Large, because some gradients are zero but for rounding (an attention's key bias): Adam would make steps of it."""


@dataclass(frozen=True)
class Case:
    """One policy: its type, options that differ from the defaults, and the shapes of its inputs."""

    type: str
    options: dict[str, Any]
    state: int | None = 4
    environment: int | None = None
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Camera -> height and width."""
    action: int = 3

    @property
    def observed_steps(self) -> int | None:
        """Length of the time axis of observations in training; None: there is none."""
        return None if self.type == "act" else self.options.get("n_obs_steps", 2)

    @property
    def action_steps(self) -> int:
        """Actions in a training sample."""
        return self.options["chunk_size"] if self.type == "act" else self.options["horizon"]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input features in order, as a policy sees them."""
        shapes: dict[str, tuple[int, ...]] = {
            f"observation.images.{name}": (3, *hw) for name, hw in self.cameras.items()
        }
        if self.state is not None:
            shapes["observation.state"] = (self.state,)
        if self.environment is not None:
            shapes["observation.environment_state"] = (self.environment,)
        return shapes

    def observation(self, number: int, batch: int = BATCH) -> dict[str, Tensor]:
        """What a robot sees at its step `number`."""
        return {
            key: wave((batch, *shape), 0.011 + 0.007 * place + (0.4 if len(shape) == 1 else 0.0), 0.3 + 0.41 * number)
            for place, (key, shape) in enumerate(self.shapes.items())
        }

    def batch(self, number: int, batch: int = BATCH) -> dict[str, Tensor]:
        """Training batch `number`."""
        steps = self.observed_steps
        values = {
            key: wave(
                (batch, *(() if steps is None else (steps,)), *shape),
                0.011 + 0.007 * place + (0.4 if len(shape) == 1 else 0.0),
                0.3 + 0.41 * number,
            )
            for place, (key, shape) in enumerate(self.shapes.items())
        }
        values["action"] = wave((batch, self.action_steps, self.action), 0.21, 0.2 + 0.37 * number)
        values["action_is_pad"] = last_padded(batch, self.action_steps)
        return values


ACT_SMALL = {
    "chunk_size": 8,
    "n_action_steps": 8,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 64,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 1,
    "latent_dim": 8,
    "dropout": 0.0,
    "pretrained_backbone_weights": None,
}
DIFFUSION_SMALL = {
    "horizon": 8,
    "n_action_steps": 4,
    "down_dims": (16, 32),
    "diffusion_step_embed_dim": 16,
    "spatial_softmax_num_keypoints": 4,
    "num_train_timesteps": 10,
    "pretrained_backbone_weights": None,
}

CASES = {
    "act_vae_two_cameras": Case("act", ACT_SMALL, cameras={"front": (40, 56), "wrist": (40, 56)}),
    "act_regression": Case(
        "act",
        ACT_SMALL
        | {
            "use_vae": False,
            "n_action_steps": 3,
            "n_decoder_layers": 2,
            "feedforward_activation": "gelu",
            "n_heads": 4,
        },
        cameras={"front": (32, 48)},
    ),
    "act_state_only": Case("act", ACT_SMALL | {"pre_norm": True, "n_vae_encoder_layers": 2}, environment=5),
    "act_dropout": Case(
        "act", ACT_SMALL | {"dropout": 0.1, "pre_norm": True}, environment=5, cameras={"front": (32, 48)}
    ),
    "act_ensemble": Case(
        "act",
        ACT_SMALL | {"temporal_ensemble_coeff": 0.3, "n_action_steps": 1, "dropout": 0.2},
        cameras={"front": (32, 48)},
    ),
    "act_dilated_resnet50": Case(
        "act",
        ACT_SMALL | {"vision_backbone": "resnet50", "replace_final_stride_with_dilation": True},
        cameras={"front": (32, 48), "wrist": (24, 40)},
    ),
    "diffusion_shared": Case(
        "diffusion",
        DIFFUSION_SMALL | {"use_separate_rgb_encoder_per_camera": False},
        cameras={"front": (40, 56), "wrist": (40, 56)},
    ),
    "diffusion_separate_crop": Case(
        "diffusion", DIFFUSION_SMALL | {"crop_shape": (40, 50)}, cameras={"front": (48, 56), "wrist": (48, 56)}
    ),
    "diffusion_resize_groups": Case(
        "diffusion",
        DIFFUSION_SMALL
        | {
            "n_obs_steps": 3,
            "resize_shape": (48, 64),
            "crop_ratio": 0.85,
            "crop_is_random": False,
            "use_group_norm": True,
        },
        environment=5,
        cameras={"front": (72, 80)},
    ),
    "diffusion_sample_ddim_masked": Case(
        "diffusion",
        DIFFUSION_SMALL
        | {
            "prediction_type": "sample",
            "noise_scheduler_type": "DDIM",
            "num_inference_steps": 4,
            "do_mask_loss_for_padding": True,
            "use_film_scale_modulation": False,
            "clip_sample_range": 0.5,
        },
        environment=5,
    ),
    "diffusion_ddim_epsilon": Case(
        "diffusion",
        DIFFUSION_SMALL | {"noise_scheduler_type": "DDIM", "num_inference_steps": 5, "beta_schedule": "scaled_linear"},
        environment=5,
    ),
    "diffusion_linear_three_levels": Case(
        "diffusion",
        DIFFUSION_SMALL
        | {
            "n_obs_steps": 1,
            "down_dims": (16, 24, 32),
            "kernel_size": 3,
            "n_groups": 4,
            "beta_schedule": "linear",
            "clip_sample": False,
            "num_inference_steps": 5,
            "gradient_checkpointing": True,
        },
        environment=2,
    ),
}


def digest(tensor: Tensor) -> list[float]:
    """A tensor in five numbers: its norm, its projection on a wave (which sees permutations), and three entries."""
    flat = tensor.detach().double().flatten()
    projection = (flat * (0.7 * torch.arange(len(flat), dtype=torch.float64) + 0.3).sin()).sum()
    entries = [flat[place] for place in (0, len(flat) // 2, len(flat) - 1)]
    return [float(flat.norm()), float(projection), *map(float, entries)]
