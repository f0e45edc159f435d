"""What a run that has no workers yet waits for, said while it waits: nodes being started, or others who use them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lerobot_ray.on_ray.capacity import Capacity, being_started, capacity_now
from lerobot_ray.on_ray.cluster import Workers

LOOK_EVERY_S = 2.0
PATIENCE_S = 4.0
"""How long a cluster may take to place workers before it is worth a word."""
REPEAT_AFTER_S = 60.0


class Waiting:
    """Asked by the driver's loop while nothing is heard from the workers."""

    def __init__(self, workers: Workers, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._said, self._repeat_s = "", REPEAT_AFTER_S
        self._said_at = self._looked_at = self._heard_at = clock()

    def heard(self) -> None:
        """The workers are alive."""
        self._heard_at, self._said = self._clock(), ""

    @property
    def is_waiting(self) -> bool:
        """Whether it has said so, and nothing has been heard since."""
        return bool(self._said)

    def news(self) -> str:
        """A line worth saying now, or nothing."""
        now = self._clock()
        if now - self._heard_at < PATIENCE_S or now - self._looked_at < LOOK_EVERY_S:
            return ""
        self._looked_at = now
        text = ""
        with contextlib.suppress(Exception):  # the cluster is busy or gone: the run itself will say so
            if is_unplaced(self._workers, _placement_groups()):
                text = what_is_missing(self._workers, capacity_now(), _free(), being_started())
        if not text or (text == self._said and now - self._said_at < self._repeat_s):
            return ""
        self._repeat_s = 2 * self._repeat_s if text == self._said else REPEAT_AFTER_S
        self._said, self._said_at = text, now
        return text


def is_unplaced(workers: Workers, groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a placement group of the size of these workers is waiting for room."""
    wanted = {name: float(amount) for name, amount in workers.resources.items() if amount}
    for group in groups:
        bundles = list(group["bundles"].values())
        is_ours = workers.fewest <= len(bundles) <= workers.count and all(bundle == wanted for bundle in bundles)
        if is_ours and group["state"] in ("PENDING", "RESCHEDULING", "PREPARED"):
            return True
    return False


def what_is_missing(workers: Workers, capacity: Capacity, free: Mapping[str, float], coming: str) -> str:
    """One line: what the workers need, what there is, what is being done about it."""
    asked = {name: amount for name, amount in workers.resources.items() if amount}
    each = ", ".join(f"{amount:g} {name}" for name, amount in asked.items())
    wanted = f"waiting for {workers.fewest} worker{'s' if workers.fewest != 1 else ''} with {each}"
    room, nodes = capacity.room(asked), len(capacity.nodes)
    if room < workers.fewest:
        has = f"the cluster has room for {room} on {nodes} node{'s' if nodes != 1 else ''}"
        idle = "its autoscaler has been asked for more" if capacity.grows else "add nodes, or lower --ray.num_workers"
        return f"{wanted}: {has}; {coming or idle}"
    if workers.fewest < workers.count and all(free.get(name, 0) >= workers.fewest * one for name, one in asked.items()):
        return f"room for {room} of {workers.count} workers: they start within a minute, more when there is more room"
    listed = ", ".join(f"{free.get(name, 0):g} of {capacity.now(name):g} {name}" for name in asked)
    return f"{wanted}: others use the cluster, {listed} free{f'; {coming}' if coming else ''}"


def _placement_groups() -> list[Mapping[str, Any]]:
    from ray.util import placement_group_table

    return list(placement_group_table().values())


def _free() -> Mapping[str, float]:
    import ray

    return ray.available_resources()
