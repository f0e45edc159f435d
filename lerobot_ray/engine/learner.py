"""What an optimizer step moves: a policy, its optimizers and schedules, and how gradients and precision are handled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from lerobot_ray.core.types import Batch
from lerobot_ray.engine.ema import Ema

Forward = Callable[..., tuple[torch.Tensor, Mapping[str, Any] | None]]
Weigh = Callable[[Batch], torch.Tensor]
"""A weight for each sample of a batch (B,), mean 1 or not; the loss becomes their weighted mean."""


@dataclass(kw_only=True)
class Learner:
    """The parts, wired together elsewhere. `forward` is the policy, or the DDP module around it."""

    policy: torch.nn.Module
    forward: Forward
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedules: Mapping[str, torch.optim.lr_scheduler.LRScheduler]
    grad_clip_norm: float = 0.0
    autocast_dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    weigh: Weigh | None = None
    sync_gradients: Callable[[bool], AbstractContextManager[Any]] = field(default=lambda is_last: nullcontext())
    """Context for one backward pass: gradients are exchanged between ranks in the last one of a step only."""

    def trainable(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.autocast_dtype)
