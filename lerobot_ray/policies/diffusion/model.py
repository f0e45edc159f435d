"""What the diffusion policy conditions on, and how it samples.

B batch, S observation steps, T horizon, A action, G global condition. Module names are the keys of the weights file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lerobot_ray.core.types import OBS_ENV_STATE, OBS_STATE, Batch
from lerobot_ray.policies.diffusion.config import DiffusionConfig
from lerobot_ray.policies.diffusion.schedule import NoiseSchedule
from lerobot_ray.policies.diffusion.unet import ConditionalUNet
from lerobot_ray.policies.diffusion.vision import ImageEncoder


class DiffusionModel(nn.Module):
    """See the module; `config` must have its features filled in."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        state, environment, action = config.robot_state_feature, config.env_state_feature, config.action_feature
        assert state is not None, "validate_features comes first"
        assert action is not None, "validate_features comes first"
        self.cameras, self.has_environment = tuple(config.image_features), environment is not None
        self.is_shared = not config.use_separate_rgb_encoder_per_camera
        self.horizon, self.action_size = config.horizon, action.shape[0]
        condition_size = state.shape[0] + (environment.shape[0] if environment is not None else 0)
        if self.cameras:
            encoders = [ImageEncoder(config) for _ in ([None] if self.is_shared else self.cameras)]
            self.rgb_encoder = encoders[0] if self.is_shared else nn.ModuleList(encoders)
            condition_size += encoders[0].feature_size * len(self.cameras)
        self.unet = ConditionalUNet(
            config, action_size=self.action_size, condition_size=condition_size * config.n_obs_steps
        )
        if config.compile_model:
            self.unet = torch.compile(self.unet, mode=config.compile_mode)  # type: ignore[assignment]
        self.schedule = NoiseSchedule(config)

    def condition(self, batch: Batch, crop_words: Tensor | None = None) -> Tensor:
        """All that was observed, as one vector (B, G): per step the state, images' features, the environment's state.

        `crop_words` (B, cameras, 2) place the random crops; a sample's crop is the same at all its observation steps.
        """
        features = [batch[OBS_STATE]]
        if self.cameras:
            features += self._image_features([batch[camera] for camera in self.cameras], crop_words)
        if self.has_environment:
            features.append(batch[OBS_ENV_STATE])
        return torch.cat(features, dim=-1).flatten(1)

    def _image_features(self, images: list[Tensor], crop_words: Tensor | None) -> list[Tensor]:
        """Per camera its features (B, S, F) of images (B, S, C, H, W)."""
        batch_size, num_steps = images[0].shape[:2]
        words = None if crop_words is None else crop_words[:, None].expand(-1, num_steps, -1, -1)  # (B, S, cameras, 2)
        if self.is_shared:
            stacked = torch.stack(images, dim=2).flatten(0, 2)
            encoded = self.rgb_encoder(stacked, None if words is None else words.flatten(0, 2))
            return [encoded.unflatten(0, (batch_size, num_steps, len(images))).flatten(2)]
        return [
            encoder(image.flatten(0, 1), None if words is None else words[:, :, number].flatten(0, 1)).unflatten(
                0, (batch_size, num_steps)
            )
            for number, (encoder, image) in enumerate(zip(self.rgb_encoder, images, strict=True))  # type: ignore[arg-type]
        ]

    def sample(self, condition: Tensor, noise: Tensor | None = None, fresh: Tensor | None = None) -> Tensor:
        """Actions (B, T, A) for a condition (B, G), from `noise` or from torch's generator.

        `fresh` (B, K, T, A) is the noise that sampling steps add, for the `num_fresh` steps that add any, in order.
        """
        x, added = noise, iter(()) if fresh is None else iter(fresh.unbind(1))
        if x is None:
            shape = (condition.shape[0], self.horizon, self.action_size)
            x = torch.randn(shape, dtype=condition.dtype, device=condition.device)
        for step in self.schedule.steps:
            timesteps = torch.full(x.shape[:1], step.timestep, dtype=torch.long, device=x.device)
            x = self.schedule.denoise(x, self.unet(x, timesteps, condition), step, added)
        return x
