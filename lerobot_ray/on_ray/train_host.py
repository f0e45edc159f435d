"""The loop's surroundings on Ray Train: its rank and device, and whether it shall stop.

Three things end a run of steps early: the driver asks (Ctrl-C, SIGTERM), a node is about to be taken away, a training
process is told to go. All ranks must decide alike and asking costs a message to every rank, so they ask at the same
steps, about every `asks_every_s`. A run that is to leave at a known step (`steps_left`) needs nobody to tell it.
"""

from __future__ import annotations

import time
from typing import Any

import ray
import ray.train
import torch

from lerobot_ray.on_ray.agreement import Word, drop_episodes, newly_unreadable
from lerobot_ray.on_ray.ingest import BlockStream
from lerobot_ray.on_ray.leaving import is_told_to_leave
from lerobot_ray.on_ray.over_ranks import gathered

MOST_STEPS_BETWEEN = 1000


class TrainHost:
    """Host over `ray.train`. After `should_stop` said yes, one of `reason`, `leaving` and `is_preempted` says why."""

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        device: torch.device,
        board: Any,
        stream: BlockStream,
        steps_left: int | None = None,
        asks_every_s: float = 2.0,
    ) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device
        self.reason = ""
        """The driver's."""
        self.leaving: list[int] = []
        """Ranks whose process was told to go: save, and start again without it."""
        self.is_preempted = False
        """A node of this run will be taken away: save, and go on until it is."""
        self._board, self._stream, self._steps_left, self._asks_every_s = board, stream, steps_left, asks_every_s
        self._steps, self._interval = 0, 1
        self._checked_at = time.monotonic()
        self._answered_preemptions: set[str] = set()

    def should_stop(self) -> bool:
        """Collective: every rank calls this after each step, and all get the same answer."""
        self._steps += 1
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left <= 0:
                self.reason = self.reason or "this leg ends here"
                return True
        if self._steps < self._interval:
            return False
        step_s = (time.monotonic() - self._checked_at) / self._steps
        words = gathered(self._word(step_s), self.world_size)
        self.reason = words[0].stop
        self.leaving = [rank for rank, word in enumerate(words) if word.leaves]
        unreadable: frozenset[int] = frozenset().union(*(word.unreadable for word in words))
        if unreadable:
            drop_episodes(self._stream, unreadable, rank=self.rank, world_size=self.world_size)
        slowest_s = max(word.step_s for word in words)
        self._interval = int(min(max(self._asks_every_s / max(slowest_s, 1e-6), 1), MOST_STEPS_BETWEEN))
        self._steps, self._checked_at = 0, time.monotonic()
        self.is_preempted = self._newly_preempted()
        return bool(self.reason or self.leaving) or self.is_preempted

    def _word(self, step_s: float) -> Word:
        return Word(
            step_s=step_s,
            stop=self._asked_to_stop() if self.rank == 0 else "",
            leaves=is_told_to_leave(),
            unreadable=newly_unreadable(self._stream),
        )

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
