"""ACT as a policy: its loss, and how actions are taken from a chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.types import ACTION, OBS_ENV_STATE, OBS_STATE, STREAM_INDEX, Batch, Stats
from lerobot_ray.policies import noise
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.act.ensemble import TemporalEnsemble
from lerobot_ray.policies.act.model import ACT
from lerobot_ray.policies.backbone_weights import load_backbone_weights
from lerobot_ray.policies.masking import ACTION_IS_PAD, masked_losses, masked_mean
from lerobot_ray.policies.protocol import PretrainedPolicy, Reduction, require_keys


class ACTPolicy(PretrainedPolicy):
    """Action Chunking with Transformers."""

    config_class: ClassVar[type[PolicyConfig]] = ACTConfig
    name: ClassVar[str] = "act"
    fsdp_wrap_classes: ClassVar[tuple[str, ...]] = ("EncoderLayer", "DecoderLayer", "BasicBlock", "Bottleneck")

    # Attention is left out: torch keeps its projections as parameters of one module, which adapters cannot replace.
    adapter_targets: ClassVar[str | None] = (
        r"model\.((vae_)?encoder|decoder)\.layers\.\d+\.linear[12]|model\.(vae_)?encoder_\w+_proj"
    )
    adapter_saved: ClassVar[tuple[str, ...]] = ("action_head",)

    config: ACTConfig

    def __init__(self, config: ACTConfig, *, dataset_stats: Stats | None = None, dataset_meta: Any = None) -> None:
        super().__init__(config, dataset_stats=dataset_stats, dataset_meta=dataset_meta)
        self.model = ACT(config)
        if config.image_features and config.pretrained_backbone_weights is not None:
            load_backbone_weights(self.model.backbone, config.vision_backbone, config.pretrained_backbone_weights)
        self._observed = [
            *([OBS_STATE] if self.model.has_state else []),
            *([OBS_ENV_STATE] if self.model.has_environment else []),
            *config.image_features,
        ]
        self._ensemble = (
            TemporalEnsemble(config.temporal_ensemble_coeff, config.chunk_size)
            if config.temporal_ensemble_coeff is not None
            else None
        )
        self.reset()

    def get_optim_params(self) -> Iterable[Any]:
        """Two groups: all but the backbone, then the backbone with its own learning rate."""
        named = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for name, parameter in named if not name.startswith("model.backbone")]},
            {
                "params": [parameter for name, parameter in named if name.startswith("model.backbone")],
                "lr": self.config.optimizer_lr_backbone,
            },
        ]

    def forward(self, batch: Batch, reduction: Reduction = "mean") -> tuple[Tensor, dict[str, Any]]:
        """L1 distance of predicted to true actions that are not padding, plus the latent's divergence in training."""
        require_keys(batch, [*self._observed, ACTION, ACTION_IS_PAD], policy="ACT")
        latent = mean = log_variance = None
        if self.config.use_vae and self.training:
            mean, log_variance = self.model.infer_latent(batch)
            latent = mean + (log_variance / 2).exp() * self._draw_latent(mean, batch)
        predicted = self.model(batch, latent)
        distance = F.l1_loss(predicted, batch[ACTION], reduction="none")
        l1 = masked_losses(distance, batch) if reduction == "none" else masked_mean(distance, batch)
        logged = {"l1_loss": l1.detach().mean()}
        if mean is None or log_variance is None:
            return l1, logged
        divergence = (-0.5 * (1 + log_variance - mean.square() - log_variance.exp())).sum(-1)
        divergence = divergence if reduction == "none" else divergence.mean()
        return l1 + self.config.kl_weight * divergence, logged | {"kld_loss": divergence.detach().mean()}

    def _draw_latent(self, like: Tensor, batch: Batch) -> Tensor:
        if STREAM_INDEX not in batch:
            return torch.randn_like(like)
        drawn = noise.normals(self.noise_seed, noise.ACT_LATENT, batch[STREAM_INDEX], (like.shape[-1],))
        return drawn.to(like.dtype)

    def reset(self) -> None:
        self._queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)
        if self._ensemble is not None:
            self._ensemble.reset()

    @torch.no_grad()
    def select_action(self, batch: Batch) -> Tensor:
        """The next action (B, A): of the ensemble, or from a queue that a new chunk fills when it is empty."""
        self.eval()
        if self._ensemble is not None:
            return self._ensemble.update(self.predict_action_chunk(batch))
        if not self._queue:
            chunk = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._queue.extend(chunk.transpose(0, 1))
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: Batch) -> Tensor:
        """All `chunk_size` actions (B, T, A) for this observation."""
        self.eval()
        require_keys(batch, self._observed, policy="ACT")
        return self.model(batch, None)
