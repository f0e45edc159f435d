"""A dataset's statistics counted by a Ray cluster: one task per file and pass, anywhere there is a free CPU.

The work and the merging are `data.recount`'s, so the numbers are those of a single process, to the last bit. Workers
read the dataset through its storage: a shared file system, or each node's own copies of Hub and object-store files.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import ray
from ray.exceptions import RayTaskError

from lerobot_ray.core.errors import ConfigError, LerobotRayError
from lerobot_ray.core.types import Stats
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.recount import count_stats
from lerobot_ray.data.runners import with_progress

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_CPU = 4
"""Tasks handed to the cluster ahead of the one whose result is due, per CPU: enough to keep every CPU busy."""


def count_stats_on_ray(
    metadata: DatasetMetadata, *, cameras: bool = True, address: str | None = None, progress: bool | None = None
) -> Stats:
    """`data.recount.count_stats` on a Ray cluster.

    The one this process is connected to; else the one at `address`; else Ray's choice: $RAY_ADDRESS, one that runs on
    this machine, or a new one.
    """
    _check_reachable(address)
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    return count_stats(metadata, run=with_progress(run_on_ray, label="stats", enabled=progress), cameras=cameras)


def _check_reachable(address: str | None) -> None:
    """Ray itself tries a dead address for minutes before it says so."""
    host, _, port = (address or "").rpartition(":")
    if not host or "//" in host or not port.isdigit():  # "local", "auto", ray://…: Ray knows what they mean
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error.strerror or error}). Start one with `ray start --head`, or "
            "correct the address."
        ) from error


def run_on_ray(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """A Runner over Ray tasks of one CPU each. A task lost with its node runs again on another."""
    remote = ray.remote(num_cpus=1, max_retries=3)(function)
    ahead = TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending: deque[ray.ObjectRef] = deque()
    left = iter(tasks)
    while True:
        for task in left:
            pending.append(remote.remote(task))
            if len(pending) >= ahead:
                break
        if not pending:
            return
        try:
            yield ray.get(pending.popleft())
        except RayTaskError as error:
            # The user wants the dataset's error, not the stack of the worker that met it.
            raise error.cause if isinstance(error.cause, LerobotRayError) else error from None
