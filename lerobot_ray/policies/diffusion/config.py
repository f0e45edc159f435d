"""Options of the diffusion policy: LeRobot's names, order and defaults, so that one `config.json` serves both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lerobot_ray.config.optim import AdamConfig, DiffuserSchedulerConfig
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import PolicyError, nearest
from lerobot_ray.core.types import NormalizationMode

PREDICTION_TYPES = ("epsilon", "sample")
BETA_SCHEDULES = {
    "DDPM": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"),
    "DDIM": ("linear", "scaled_linear", "squaredcos_cap_v2"),
}
"""Sampler -> the noise schedules it knows."""


@PolicyConfig.register_subclass("diffusion")
@dataclass
class DiffusionConfig(PolicyConfig):
    """Diffusion policy."""

    policy_path: ClassVar[str] = "lerobot_ray.policies.diffusion.policy:DiffusionPolicy"

    n_obs_steps: int = 2
    """Observation steps the policy looks at, the current one included."""
    horizon: int = 64
    """Actions denoised at once, counted from the oldest observation step."""
    n_action_steps: int = 32
    """Actions carried out before the next prediction."""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )
    """Feature type -> how it is scaled."""
    drop_n_last_frames: int = 7
    """Frames at the end of an episode that are not trained on, because most of their actions would be padding."""
    vision_backbone: str = "resnet18"
    """resnet18, 34, 50, 101 or 152."""
    resize_shape: tuple[int, int] | None = None
    """Height and width images are resized to first; null: not resized."""
    crop_ratio: float = 1.0
    """With `resize_shape`: share of its sides that is kept when cropping."""
    crop_shape: tuple[int, int] | None = None
    """Height and width cut out of the image; null: not cropped. Follows from `crop_ratio` when images are resized."""
    crop_is_random: bool = True
    """Cut at random places in training; at the centre otherwise, and always in evaluation."""
    pretrained_backbone_weights: str | None = "ResNet18_Weights.IMAGENET1K_V1"
    """Weights the backbone starts from: torchvision's name for a set, a .safetensors file, or null for random ones."""
    use_group_norm: bool = False
    """Group norm in the backbone in place of batch norm; needs random weights."""
    spatial_softmax_num_keypoints: int = 32
    """Points an image is summarised by."""
    use_separate_rgb_encoder_per_camera: bool = True
    """One image encoder per camera, or one for all."""
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    """Channels of the U-Net's levels."""
    kernel_size: int = 5
    """Of the U-Net's convolutions over time; odd."""
    n_groups: int = 8
    """Groups of the U-Net's group norms."""
    diffusion_step_embed_dim: int = 128
    """Width of the embedding of the denoising step."""
    use_film_scale_modulation: bool = True
    """Let the condition scale the U-Net's channels as well as shift them."""
    gradient_checkpointing: bool = False
    """Recompute the U-Net's blocks in the backward pass: less memory, more time."""
    noise_scheduler_type: str = "DDPM"
    """Sampler: DDPM or DDIM."""
    num_train_timesteps: int = 100
    """Denoising steps the noise is spread over."""
    beta_schedule: str = "squaredcos_cap_v2"
    """How the noise grows over the steps."""
    beta_start: float = 0.0001
    """Noise of the first step, for schedules that ask."""
    beta_end: float = 0.02
    """Noise of the last step, for schedules that ask."""
    prediction_type: str = "epsilon"
    """What the U-Net predicts: the noise (epsilon) or the actions (sample)."""
    clip_sample: bool = True
    """Clip the predicted actions while sampling; right for actions scaled to [-1, 1]."""
    clip_sample_range: float = 1.0
    """To plus and minus this."""
    num_inference_steps: int | None = None
    """Denoising steps taken when sampling; null: all of them."""
    compile_model: bool = False
    """Compile the U-Net."""
    compile_mode: str = "reduce-overhead"
    """Mode it is compiled in."""
    do_mask_loss_for_padding: bool = False
    """Leave actions beyond the episode's end out of the loss."""
    optimizer_lr: float = 1e-4
    """Learning rate."""
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    """Adam's decay rates."""
    optimizer_eps: float = 1e-8
    """Adam's epsilon."""
    optimizer_weight_decay: float = 1e-6
    """Weight decay."""
    scheduler_name: str = "cosine"
    """Learning-rate schedule."""
    scheduler_warmup_steps: int = 500
    """Its warm-up."""

    def __post_init__(self) -> None:
        self._check_images()
        self._check_noise()
        downsampling = 2 ** len(self.down_dims)
        if self.horizon % downsampling:
            above = -(-self.horizon // downsampling) * downsampling
            raise PolicyError(
                f"policy.horizon={self.horizon} is not divisible by {downsampling}, two to the number of levels in "
                f"policy.down_dims={list(self.down_dims)}. Try {above}."
            )
        for channels in self.down_dims:
            if channels % self.n_groups:
                raise PolicyError(f"policy.down_dims has {channels}, not divisible by policy.n_groups={self.n_groups}.")

    def _check_images(self) -> None:
        if not self.vision_backbone.startswith("resnet"):
            raise PolicyError(f"policy.vision_backbone={self.vision_backbone} is not a ResNet, such as resnet18.")
        if not 0 < self.crop_ratio <= 1:
            raise PolicyError(f"policy.crop_ratio={self.crop_ratio:g} is not in (0, 1].")
        for name in ("resize_shape", "crop_shape"):
            shape = getattr(self, name)
            if shape is not None and (len(shape) != 2 or min(shape) <= 0):
                raise PolicyError(f"policy.{name}={list(shape)} is not a height and a width, both positive.")
        if self.resize_shape is not None:
            height, width = (int(side * self.crop_ratio) for side in self.resize_shape)
            self.crop_shape = (height, width) if self.crop_ratio < 1 else None
        if self.use_group_norm and self.pretrained_backbone_weights is not None:
            raise PolicyError(
                f"policy.use_group_norm=true cannot start from batch-norm weights "
                f"({self.pretrained_backbone_weights}). Set policy.pretrained_backbone_weights=null."
            )

    def _check_noise(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise PolicyError(f"policy.prediction_type={self.prediction_type} is not one of epsilon, sample.")
        if self.noise_scheduler_type not in BETA_SCHEDULES:
            raise PolicyError(f"policy.noise_scheduler_type={self.noise_scheduler_type} is not one of DDPM, DDIM.")
        known = BETA_SCHEDULES[self.noise_scheduler_type]
        if self.beta_schedule not in known:
            near = nearest(self.beta_schedule, known)
            hint = f"Did you mean {near}?" if near else f"Known: {', '.join(known)}."
            raise PolicyError(
                f"policy.beta_schedule={self.beta_schedule} is not one {self.noise_scheduler_type} has. {hint}"
            )
        if self.num_inference_steps is not None and not 0 < self.num_inference_steps <= self.num_train_timesteps:
            raise PolicyError(
                f"policy.num_inference_steps={self.num_inference_steps} is not between 1 and "
                f"policy.num_train_timesteps={self.num_train_timesteps}."
            )

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1 - self.n_obs_steps + self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamConfig:
        return AdamConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)

    def validate_features(self) -> None:
        inputs = ", ".join(self.input_features or {}) or "none"
        if not self.image_features and self.env_state_feature is None:
            raise PolicyError(
                f"the diffusion policy needs a camera or observation.environment_state among its inputs, which are "
                f"{inputs}. Add one to policy.input_features, or check the dataset's features."
            )
        if self.robot_state_feature is None:
            raise PolicyError(
                f"the diffusion policy needs observation.state among its inputs, which are {inputs}. Add it to "
                f"policy.input_features, or check the dataset's features."
            )
        if self.action_feature is None:
            raise PolicyError(
                f"the diffusion policy needs an output named action; the outputs are "
                f"{', '.join(self.output_features or {}) or 'none'}. Name the dataset's action column action."
            )
        cameras = list(self.image_features.items())
        for key, camera in cameras:
            if camera.shape != cameras[0][1].shape:
                raise PolicyError(
                    f"{key} is {_size(camera.shape)} but {cameras[0][0]} is {_size(cameras[0][1].shape)}: the "
                    f"diffusion policy needs cameras of one shape. Leave one out of policy.input_features."
                )
            if self.resize_shape is None and self.crop_shape is not None:
                height, width = self.crop_shape
                if height > camera.shape[1] or width > camera.shape[2]:
                    raise PolicyError(
                        f"policy.crop_shape={list(self.crop_shape)} is larger than {key}, which is "
                        f"{_size(camera.shape)}. Lower it, or set it to null."
                    )


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
