"""The loop's surroundings on Ray Train: its rank and device, and whether it shall stop.

Two things end a run early: the driver asks (Ctrl-C, SIGTERM), or a node is about to be taken away. All ranks must
decide alike and asking costs a message to every rank, so they ask at the same steps, about every `CHECK_EVERY_S`.
"""

from __future__ import annotations

import time
from typing import Any

import ray
import ray.train
import torch

from lerobot_ray.on_ray.over_ranks import gathered

CHECK_EVERY_S = 2.0
MOST_STEPS_BETWEEN = 1000


class TrainHost:
    """Host over `ray.train`. `reason` says why `should_stop` said yes."""

    def __init__(self, *, rank: int, world_size: int, device: torch.device, board: Any) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device
        self.reason = ""
        self.is_preempted = False
        """A node of this run will be taken away: save, and go on until it is."""
        self._board = board
        self._steps, self._interval = 0, 1
        self._checked_at = time.monotonic()
        self._answered_preemptions: set[str] = set()

    def should_stop(self) -> bool:
        """Collective: every rank calls this after each step, and all get the same answer."""
        self._steps += 1
        if self._steps < self._interval:
            return False
        now = time.monotonic()
        step_s = (now - self._checked_at) / self._steps
        mine = self._asked_to_stop() if self.rank == 0 else ""
        answers = gathered((mine, step_s), self.world_size)
        self.reason = answers[0][0]
        slowest_s = max(seconds for _, seconds in answers)
        self._interval = int(min(max(CHECK_EVERY_S / max(slowest_s, 1e-6), 1), MOST_STEPS_BETWEEN))
        self._steps, self._checked_at = 0, time.monotonic()
        self.is_preempted = self._newly_preempted()
        return bool(self.reason) or self.is_preempted

    def _asked_to_stop(self) -> str:
        try:
            return ray.get(self._board.stop_requested.remote(), timeout=5)
        except ray.exceptions.RayError:  # the driver's end of it is gone or slow; Ray Train will say so
            return ""

    def _newly_preempted(self) -> bool:
        notice = ray.train.get_preemption_info()
        nodes = set(notice.preempted_node_ids) if notice is not None else set()
        is_new = not nodes <= self._answered_preemptions
        self._answered_preemptions |= nodes
        return is_new
