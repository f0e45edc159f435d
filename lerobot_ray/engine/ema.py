"""An exponential moving average of the parameters, LeRobot's schedule, kept shard by shard beside the trained ones.

Trained parameters only: buffers and what is frozen are the live model's. Each rank averages what it holds, so nothing
is gathered and sharded models need no more than sharded room.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lerobot_ray.config.ema import EmaConfig


def ema_decay(config: EmaConfig, update: int) -> float:
    """The decay at update 1, 2, …: zero (a copy) until `update_after_step`, then rising between the bounds."""
    t = max(0, update - config.update_after_step - 1)
    if t == 0:
        return 0.0
    if config.decay is not None:
        return config.decay
    return min(max(1 - (1 + t / config.inv_gamma) ** -config.power, config.min_decay), config.max_decay)


class Ema:
    """The average of a policy's parameters. `update` after every optimizer step; `averaged` to look through it."""

    def __init__(self, policy: torch.nn.Module, config: EmaConfig) -> None:
        self.config = config
        self.num_updates = 0
        self._live = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
        self.shadow = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self) -> float:
        """Move the average towards the live parameters; the decay used."""
        self.num_updates += 1
        decay = ema_decay(self.config, self.num_updates)
        shadow, live = ([_local(tensor) for tensor in side.values()] for side in (self.shadow, self._live))
        torch._foreach_lerp_(shadow, live, 1 - decay)
        return decay

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the policy's parameters are the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            mine, theirs = _local(self.shadow[name]), _local(parameter)
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor; the tensor itself otherwise."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
