"""Where a run stands: two integers. Everything else about the data and the randomness follows from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainState:
    """Optimizer steps taken, and samples those steps have trained on (the next stream index)."""

    step: int = 0
    samples_seen: int = 0

    def after_step(self, global_batch: int) -> TrainState:
        return TrainState(self.step + 1, self.samples_seen + global_batch)
