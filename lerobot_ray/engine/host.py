"""Where the loop runs, as far as the loop needs to know: its rank, its device, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch


class Host(Protocol):
    """One process among `world_size`. The loop calls `should_stop` on every rank once a step, and nothing else."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def should_stop(self) -> bool:
        """Collective: every rank calls this after each step, and all get the same answer. True: save and leave."""


@dataclass
class LocalHost:
    """One process, on its own: tests, notebooks, a run without a cluster."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1
    stop_at_step: int | None = None
    _steps: int = 0

    def should_stop(self) -> bool:
        self._steps += 1
        return self.stop_at_step is not None and self._steps >= self.stop_at_step
