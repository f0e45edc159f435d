"""One optimizer step: forward and backward over its micro-batches, clip, move, advance the schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lerobot_ray.core.types import STREAM_INDEX, Batch
from lerobot_ray.engine.learner import Learner


@dataclass
class StepResult:
    """What a step computed. Tensors may still be on their way: read them when logging, not before."""

    loss: torch.Tensor
    grad_norm: torch.Tensor
    logged: dict[str, torch.Tensor | float] = field(default_factory=dict)
    stream_indices: list[torch.Tensor] = field(default_factory=list)
    is_finite: torch.Tensor | None = None


def backward(learner: Learner, micro_batches: Iterable[Batch], *, count: int, device: torch.device) -> StepResult:
    """Accumulate the gradient of the mean loss over `count` micro-batches of equal size."""
    total: torch.Tensor | None = None
    result = StepResult(torch.zeros(()), torch.zeros(()))
    for number, batch in enumerate(micro_batches, start=1):
        with learner.sync_gradients(number == count):
            with learner.autocast(device):
                loss, logged = _loss(learner, batch)
            share = loss / count
            (learner.scaler.scale(share) if learner.scaler else share).backward()
        total = share.detach() if total is None else total + share.detach()
        for name, value in _numbers(logged or {}).items():
            result.logged[name] = result.logged.get(name, 0.0) + value / count
        if STREAM_INDEX in batch:
            result.stream_indices.append(batch[STREAM_INDEX])
    assert total is not None, "a step has at least one micro-batch"
    result.loss = total
    return result


def move(learner: Learner, result: StepResult, *, wait_and_skip: bool = False) -> bool:
    """Clip and take the step. With `wait_and_skip`, a step that is not finite is not taken; False then.

    A step whose gradients overflow under the loss scale (fp16) is not taken either, and the scale is lowered: what goes
    by steps taken, the schedule and the average, stands still. To know, fp16 waits for the device every step.
    Collective under sharding: the gradient norm is that of all ranks, so all take the step or none does.
    """
    for optimizer in learner.optimizers.values():
        if learner.scaler:
            learner.scaler.unscale_(optimizer)
    result.grad_norm = _whole(
        torch.nn.utils.clip_grad_norm_(learner.trainable(), learner.grad_clip_norm or float("inf"))
    )
    result.is_finite = torch.isfinite(result.loss)
    if not learner.scaler:  # under a loss scale, gradients that overflow are the scale's fault
        result.is_finite = result.is_finite & torch.isfinite(result.grad_norm)
    if (wait_and_skip or learner.scaler) and not bool(torch.isfinite(result.grad_norm)):
        _zero(learner)
        if learner.scaler:
            _lower(learner.scaler)
        return not wait_and_skip
    for name, optimizer in learner.optimizers.items():
        learner.scaler.step(optimizer) if learner.scaler else optimizer.step()
        if name in learner.schedules:
            learner.schedules[name].step()
    if learner.scaler:
        learner.scaler.update()
    _zero(learner)
    update = getattr(learner.policy, "update", None)
    if callable(update):
        update()
    if learner.ema is not None:
        learner.ema.update()
    return True


def _loss(learner: Learner, batch: Batch) -> tuple[torch.Tensor, Any]:
    if learner.weigh is None:
        return learner.forward(batch)
    losses, logged = learner.forward(batch, reduction="none")
    weights = learner.weigh(batch).to(losses)
    return (losses * weights).mean(), {**(logged or {}), "zero_weight": (weights == 0).float().mean()}


def _numbers(logged: Mapping[str, Any]) -> dict[str, torch.Tensor | float]:
    """The scalars among what a policy logs."""
    tensors = {name: v.detach() for name, v in logged.items() if isinstance(v, torch.Tensor) and v.ndim == 0}
    return tensors | {name: float(v) for name, v in logged.items() if isinstance(v, (int, float))}


def _lower(scaler: torch.amp.GradScaler) -> None:
    """What `update` does after an overflow, here alike on all ranks: each has looked at its own shard only."""
    scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 0})


def _zero(learner: Learner) -> None:
    for optimizer in learner.optimizers.values():
        optimizer.zero_grad(set_to_none=True)


def _whole(norm: torch.Tensor) -> torch.Tensor:
    """The norm over all ranks: sharded parameters give a tensor that still is in parts."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
