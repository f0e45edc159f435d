"""Temporal ensembling (Zhao et al., 2023): the action of a step is a mean over all chunks that predicted it."""

from __future__ import annotations

import torch
from torch import Tensor


class TemporalEnsemble:
    """Keeps, per future step, the weighted mean of what was predicted for it. Weights exp(-coeff · i), oldest i = 0."""

    def __init__(self, coefficient: float, chunk_size: int) -> None:
        self.weights = torch.exp(-coefficient * torch.arange(chunk_size))
        self.totals = self.weights.cumsum(0)
        self.mean: Tensor | None = None
        self.seen: Tensor | None = None

    def reset(self) -> None:
        """Forget everything: an episode begins."""
        self.mean = self.seen = None

    def update(self, chunk: Tensor) -> Tensor:
        """Takes in a chunk (B, T, A) predicted now; returns this step's action (B, A)."""
        weights, totals = self.weights.to(chunk.device), self.totals.to(chunk.device)
        if self.mean is None or self.seen is None:
            self.mean, self.seen = chunk.clone(), torch.ones(chunk.shape[1], 1, dtype=torch.long, device=chunk.device)
        else:  # all steps but the newest were predicted before, `seen` times
            known, last = chunk[:, :-1], chunk[:, -1:]
            mean = (self.mean * totals[self.seen - 1] + known * weights[self.seen]) / totals[self.seen]
            self.mean = torch.cat([mean, last], dim=1)
            self.seen = torch.cat([(self.seen + 1).clamp(max=len(weights)), torch.ones_like(self.seen[-1:])])
        action, self.mean, self.seen = self.mean[:, 0], self.mean[:, 1:], self.seen[1:]
        return action
