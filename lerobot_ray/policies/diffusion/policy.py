"""The diffusion policy as a policy: its loss, and how actions are taken from what it samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.types import ACTION, OBS_ENV_STATE, OBS_STATE, STREAM_INDEX, Batch, Stats
from lerobot_ray.policies import noise as draws
from lerobot_ray.policies.diffusion.config import DiffusionConfig
from lerobot_ray.policies.diffusion.model import DiffusionModel
from lerobot_ray.policies.masking import ACTION_IS_PAD, masked_losses, masked_mean
from lerobot_ray.policies.protocol import PretrainedPolicy, Reduction, require_keys


class DiffusionPolicy(PretrainedPolicy):
    """Diffusion policy."""

    config_class: ClassVar[type[PolicyConfig]] = DiffusionConfig
    name: ClassVar[str] = "diffusion"
    fsdp_wrap_classes: ClassVar[tuple[str, ...]] = ("ResidualBlock", "BasicBlock", "Bottleneck")

    adapter_targets: ClassVar[str | None] = (
        r"diffusion\.unet\.(down|mid|up)_modules\.\d+(\.\d+)?\.(conv[12]\.block\.0|cond_encoder\.1)"
    )
    adapter_saved: ClassVar[tuple[str, ...]] = ("final_conv",)

    config: DiffusionConfig

    def __init__(
        self, config: DiffusionConfig, *, dataset_stats: Stats | None = None, dataset_meta: Any = None
    ) -> None:
        super().__init__(config, dataset_stats=dataset_stats, dataset_meta=dataset_meta)
        self.diffusion = DiffusionModel(config)
        self._observed = [
            OBS_STATE,
            *config.image_features,
            *([OBS_ENV_STATE] if self.diffusion.has_environment else []),
        ]
        self.reset()

    def get_optim_params(self) -> Iterable[Any]:
        return self.diffusion.parameters()

    def init_buffers(self) -> None:
        self.diffusion.schedule.init_buffers()

    def forward(self, batch: Batch, reduction: Reduction = "mean") -> tuple[Tensor, dict[str, Any] | None]:
        """Squared distance of what the U-Net predicts to the noise that was added, or to the actions."""
        masks = self.config.do_mask_loss_for_padding
        require_keys(batch, [*self._observed, ACTION, *([ACTION_IS_PAD] if masks else [])], policy="diffusion")
        actions, schedule = batch[ACTION], self.diffusion.schedule
        if STREAM_INDEX in batch:
            noise, timesteps, crop_words = self._draw(batch[STREAM_INDEX], actions)
            condition = self.diffusion.condition(batch, crop_words)
        else:  # LeRobot's order: crops, noise, denoising steps
            condition = self.diffusion.condition(batch)
            noise = torch.randn(actions.shape, device=actions.device)
            timesteps = torch.randint(0, schedule.num_train_timesteps, (actions.shape[0],), device=actions.device)
        predicted = self.diffusion.unet(schedule.add_noise(actions, noise, timesteps), timesteps, condition)
        distance = F.mse_loss(predicted, noise if schedule.predicts_noise else actions, reduction="none")
        if masks:
            return (masked_losses if reduction == "none" else masked_mean)(distance, batch), None
        return (distance.mean((1, 2)) if reduction == "none" else distance.mean()), None

    def _draw(self, stream_index: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noise (B, T, A), denoising steps (B,) and crop words (B, cameras, 2) of these samples, in one draw."""
        count, cameras = actions[0].numel(), len(self.diffusion.cameras)
        head = 2 * cameras + 2  # words for crops, one for the step, one unused: noise takes them in pairs
        words = draws.words(self.noise_seed, draws.DIFFUSION_LOSS, stream_index, head + count + count % 2)
        noise = draws.as_normal(words[:, head:])[:, :count].reshape(actions.shape)
        timesteps = draws.as_integer(words[:, 2 * cameras], self.diffusion.schedule.num_train_timesteps)
        return noise, timesteps, words[:, : 2 * cameras].unflatten(1, (cameras, 2))

    def reset(self) -> None:
        self._observations: dict[str, deque[Tensor]] = {
            key: deque(maxlen=self.config.n_obs_steps) for key in self._observed
        }
        self._actions: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    @torch.no_grad()
    def select_action(self, batch: Batch, noise: Tensor | None = None) -> Tensor:
        """The next action (B, A), from a queue that new samples fill when it is empty.

        Noise follows from the batch's stream indices, if it has them, so that a row's action is its own.
        """
        self.eval()
        self._observe(batch)
        if not self._actions:
            self._actions.extend(self._sample_chunk(noise, batch.get(STREAM_INDEX)).transpose(0, 1))
        return self._actions.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: Batch, noise: Tensor | None = None) -> Tensor:
        """Actions (B, n_action_steps, A) from the current step on; this observation joins those seen since `reset`."""
        self.eval()
        self._observe(batch)
        return self._sample_chunk(noise, batch.get(STREAM_INDEX))

    def _observe(self, batch: Batch) -> None:
        require_keys(batch, self._observed, policy="diffusion")
        for key, seen in self._observations.items():
            seen.extend([batch[key]] * (1 if seen else self.config.n_obs_steps))  # the first one fills the queue

    def _sample_chunk(self, noise: Tensor | None, stream_index: Tensor | None) -> Tensor:
        observed = {key: torch.stack(list(seen), dim=1) for key, seen in self._observations.items()}
        condition, fresh = self.diffusion.condition(observed), None
        if noise is None and stream_index is not None:
            model, steps = self.diffusion, 1 + self.diffusion.schedule.num_fresh
            shape = (steps, model.horizon, model.action_size)
            drawn = draws.normals(self.noise_seed, draws.DIFFUSION_SAMPLE, stream_index, shape).to(condition.dtype)
            noise, fresh = drawn[:, 0], drawn[:, 1:]
        actions = self.diffusion.sample(condition, noise, fresh)
        first = self.config.n_obs_steps - 1
        return actions[:, first : first + self.config.n_action_steps]
