"""Averaging a loss over the actions that are not padding, so that the average survives a split batch."""

from __future__ import annotations

from torch import Tensor

from lerobot_ray.core.types import ACTION, PAD_SUFFIX, VALID_ACTIONS, Batch

ACTION_IS_PAD = ACTION + PAD_SUFFIX


def masked_mean(distance: Tensor, batch: Batch) -> Tensor:
    """Mean of `distance` (B, T, A) over all numbers of actions that are real. See `masked_losses`."""
    return (distance * _is_real(batch)).sum() / _count(distance, batch)


def masked_losses(distance: Tensor, batch: Batch) -> Tensor:
    """Each sample's share (B,), whose mean is `masked_mean`: a sample counts by how many real actions it has.

    They are counted in the batch, or in the step's global batch where the batch carries that number: then the mean over
    micro-batches and ranks is the mean over the global batch, however it was split.
    """
    return (distance * _is_real(batch)).sum((1, 2)) * (distance.shape[0] / _count(distance, batch))


def _is_real(batch: Batch) -> Tensor:
    return ~batch[ACTION_IS_PAD][..., None]


def _count(distance: Tensor, batch: Batch) -> Tensor:
    real = batch[VALID_ACTIONS] if VALID_ACTIONS in batch else _is_real(batch)
    return (real.sum() * distance.shape[-1]).clamp(min=1)
