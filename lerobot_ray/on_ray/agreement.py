"""What all ranks must decide alike between two steps: to stop, to save because somebody leaves, to drop an episode."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from lerobot_ray.data.bad_episodes import SkippingOrder, agreed_index
from lerobot_ray.on_ray.ingest import BlockStream
from lerobot_ray.on_ray.over_ranks import gathered

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Word:
    """What one rank brings to the others."""

    step_s: float
    stop: str = ""
    """Why the driver wants to stop; rank 0 asks it."""
    leaves: bool = False
    unreadable: frozenset[int] = frozenset()
    """Episodes it found unreadable that are not dropped yet."""


def newly_unreadable(stream: BlockStream) -> frozenset[int]:
    order = stream.plan.order
    if not isinstance(order, SkippingOrder):
        return frozenset()
    return frozenset(stream.unreadable - {item.episode for item in order.dropped})


def drop_episodes(stream: BlockStream, episodes: Iterable[int], *, rank: int, world_size: int) -> None:
    """Collective: every rank calls this, with the same episodes. All drop them from the same stream index on."""
    order = stream.plan.order
    assert isinstance(order, SkippingOrder)
    planned_until = gathered(stream.hold(), world_size)
    index = agreed_index(planned_until, start=stream.plan.start, global_batch=stream.plan.global_batch)
    stream.reorder(order.without(episodes, from_index=index))
    if rank == 0:
        for episode in sorted(episodes):
            logger.warning("episode %d is dropped on all ranks from stream index %d on", episode, index)
