"""Options of ACT: LeRobot's names, order and defaults, so that one `config.json` serves both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lerobot_ray.config.optim import AdamWConfig, SchedulerConfig
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.types import NormalizationMode

ACTIVATIONS = ("relu", "gelu")


@PolicyConfig.register_subclass("act")
@dataclass
class ACTConfig(PolicyConfig):
    """Action Chunking with Transformers."""

    policy_path: ClassVar[str] = "lerobot_ray.policies.act.policy:ACTPolicy"

    chunk_size: int = 100
    """Actions predicted at once."""
    n_action_steps: int = 100
    """Actions carried out before the next prediction."""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }
    )
    """Feature type -> how it is scaled."""
    vision_backbone: str = "resnet18"
    """resnet18, 34, 50, 101 or 152, shared by all cameras."""
    pretrained_backbone_weights: str | None = "ResNet18_Weights.IMAGENET1K_V1"
    """Weights the backbone starts from: torchvision's name for a set, a .safetensors file, or null for random ones."""
    replace_final_stride_with_dilation: bool | int = False  # LeRobot writes 0 for false once it has read it back
    """Keep the last stage at twice the resolution, with dilated convolutions (resnet50 and larger)."""
    pre_norm: bool = False
    """Normalise before attention and feed-forward instead of after."""
    dim_model: int = 512
    """Width of the transformer."""
    n_heads: int = 8
    """Attention heads."""
    dim_feedforward: int = 3200
    """Width inside the feed-forward blocks."""
    feedforward_activation: str = "relu"
    """relu or gelu."""
    n_encoder_layers: int = 4
    """Layers over state and image tokens."""
    n_decoder_layers: int = 1
    """Layers over the action queries."""
    use_vae: bool = True
    """Train with a latent inferred from the true actions; without it the model is plain regression."""
    latent_dim: int = 32
    """Size of that latent."""
    n_vae_encoder_layers: int = 4
    """Layers of the encoder that infers it."""
    temporal_ensemble_coeff: float | None = None
    """Average overlapping predictions with weights exp(-coeff · age); needs n_action_steps=1. null: do not."""
    dropout: float = 0.1
    """Dropout in every transformer layer."""
    kl_weight: float = 10.0
    """Weight of the latent's divergence in the loss."""
    optimizer_lr: float = 1e-5
    """Learning rate of everything but the backbone."""
    optimizer_weight_decay: float = 1e-4
    """Weight decay."""
    optimizer_lr_backbone: float = 1e-5
    """Learning rate of the backbone."""

    def __post_init__(self) -> None:
        if self.n_obs_steps != 1:
            raise PolicyError(f"policy.n_obs_steps={self.n_obs_steps}: ACT looks at one observation step. Set it to 1.")
        if self.n_action_steps > self.chunk_size:
            raise PolicyError(
                f"policy.n_action_steps={self.n_action_steps} is more than policy.chunk_size={self.chunk_size}: "
                f"no more actions can be carried out than are predicted. Lower the one or raise the other."
            )
        if self.temporal_ensemble_coeff is not None and self.n_action_steps != 1:
            raise PolicyError(
                f"policy.temporal_ensemble_coeff needs a prediction at every step, but policy.n_action_steps="
                f"{self.n_action_steps}. Set n_action_steps to 1, or the coefficient to null."
            )
        if not self.vision_backbone.startswith("resnet"):
            raise PolicyError(f"policy.vision_backbone={self.vision_backbone} is not a ResNet, such as resnet18.")
        if self.feedforward_activation not in ACTIVATIONS:
            raise PolicyError(
                f"policy.feedforward_activation={self.feedforward_activation} is not one of {', '.join(ACTIVATIONS)}."
            )
        if self.dim_model % self.n_heads:
            raise PolicyError(
                f"policy.dim_model={self.dim_model} is not divisible by policy.n_heads={self.n_heads}: "
                f"the heads share the width evenly."
            )

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> SchedulerConfig | None:
        return None

    def validate_features(self) -> None:
        if not self.image_features and self.env_state_feature is None:
            raise PolicyError(
                f"ACT needs a camera or observation.environment_state among its inputs, which are "
                f"{', '.join(self.input_features or {}) or 'none'}. Add one to policy.input_features, or check the "
                f"dataset's features."
            )
        if self.action_feature is None:
            raise PolicyError(
                f"ACT needs an output named action; the outputs are {', '.join(self.output_features or {}) or 'none'}. "
                f"Name the dataset's action column action."
            )
