"""The Ray cluster a run uses, the one it is told of or one started here; and what fits on it."""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.runners import available_cpus
from lerobot_ray.on_ray.capacity import Capacity, capacity_now

logger = logging.getLogger(__name__)

STORE_PER_WORKER_BYTES = 4 << 30
"""Object store that one worker's blocks in flight are given on a Ray that is started here, where memory allows."""
STORE_SMALLEST_BYTES = 100 << 20
NOT_RECORDED = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
}
"""What a Ray for one run, which has no dashboard, does not record about itself: nobody reads it, and it costs CPU."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many training processes, and what each of them holds."""

    count: int
    fewest: int
    """As few as this will do; less than `count` when the run is elastic."""
    use_gpu: bool
    resources: Mapping[str, float]


def address_of(config: RayConfig) -> str | None:
    """The cluster to connect to; None: start Ray on this machine."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def connected(config: RayConfig, workers_if_local: Workers | None, *, rollout_cpus: float = 0.0) -> Iterator[None]:
    """Within the block this process is connected to Ray. What was started here is stopped again, nothing else is."""
    if _is_initialized():  # a notebook's, a test's
        yield
        return
    address = address_of(config)
    is_started_here = address is None or address == "local"
    before_ray_is_imported(config)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if is_started_here:
        assert workers_if_local is not None
        ray.init(
            address="local",
            num_cpus=cpus_to_claim(workers_if_local, rollout_cpus=rollout_cpus),
            object_store_memory=object_store_bytes(config, workers_if_local.count),
            include_dashboard=False,
            **quiet,
        )
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster at {address}: {error}. Start one (ray start --head), or leave out --ray.address and "
                "RAY_ADDRESS to train on this machine."
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def is_connected_or_remote(config: RayConfig) -> bool:
    """Whether the cluster is there already, so that it must be asked what it holds."""
    return _is_initialized() or address_of(config) not in (None, "local")


def _is_initialized() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def before_ray_is_imported(config: RayConfig) -> None:
    """Sets what Ray reads when it is imported, if one is going to be started here.

    Among it a password, known to this process and its children alone: without one Ray writes a token into the user's
    home and says so at every start.
    """
    if is_connected_or_remote(config):
        return
    for name, value in NOT_RECORDED.items():
        os.environ.setdefault(name, value)
    has_own = any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not has_own and "ray" not in sys.modules:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def workers_here(config: RayConfig, policy_device: str | None) -> Workers:
    """The workers of a run on this machine alone."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    workers = _workers(config, policy_device, gpus=gpus, gpus_at_most=gpus, where="this machine")
    asked = {name: amount for name, amount in workers.resources.items() if name == "GPU" and gpus}
    if asked:  # its CPUs are shared as the user likes
        _check_room(workers, asked, Capacity(({"GPU": gpus},)), "this machine")
    return workers


def workers_on_cluster(config: RayConfig, policy_device: str | None) -> Workers:
    """The workers of a run on the cluster this process is connected to; ConfigError if it can never hold them."""
    return workers_within(capacity_now(), config, policy_device)


def workers_within(
    capacity: Capacity, config: RayConfig, policy_device: str | None, *, where: str = "the cluster"
) -> Workers:
    """The workers of a run on a cluster of this capacity; ConfigError if it can never hold them."""
    gpus, at_most = int(capacity.now("GPU")), capacity.at_most("GPU")
    if capacity.grows and not capacity.types:  # an autoscaler that does not tell what it may start
        return _workers(config, policy_device, gpus=gpus, gpus_at_most=math.inf if config.use_gpu else gpus)
    workers = _workers(config, policy_device, gpus=gpus, gpus_at_most=at_most, where=where)
    _check_room(workers, workers.resources, capacity, where)
    if workers.use_gpu and not config.num_workers and gpus < at_most:
        logger.info(
            "the cluster has %d GPUs now and may grow to %g: training on %d; --ray.num_workers=N takes more",
            gpus,
            at_most,
            workers.count,
        )
    return workers


def nodes_of_cluster() -> list[dict[str, float]]:
    """What the nodes hold; nothing when an autoscaler may bring others."""
    import ray

    return [] if may_grow() else [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _workers(
    config: RayConfig, policy_device: str | None, *, gpus: int, gpus_at_most: float, where: str = "the cluster"
) -> Workers:
    use_gpu = config.use_gpu
    if use_gpu is None:
        use_gpu = gpus_at_most > 0 and policy_device not in ("cpu", "mps")
        if policy_device == "cuda" and not use_gpu:
            logger.warning("policy.device=cuda, but %s has no GPU: training on CPUs", where)
    resources = config.resources_per_worker or ({"CPU": 1.0, "GPU": 1.0} if use_gpu else {"CPU": 1.0})
    if use_gpu:
        resources = {"GPU": 1.0, **resources}
        if not gpus_at_most:
            raise ConfigError(
                f"ray.use_gpu=true, but {where} has no GPU. Leave it out to train on CPUs, or start where there is one."
            )
    count = config.num_workers or (max(1, gpus) if use_gpu else 1)
    return Workers(count=count, fewest=min(config.min_workers or count, count), use_gpu=use_gpu, resources=resources)


def _check_room(workers: Workers, each: Mapping[str, float], capacity: Capacity, where: str) -> None:
    """ConfigError unless so many workers ever fit at once."""
    room = capacity.room_at_most(each)
    if workers.fewest <= room:
        return
    asked = {name: amount for name, amount in each.items() if amount > 0}
    size = ", ".join(f"{amount:g} {name}" for name, amount in asked.items())
    now = ", ".join(f"{capacity.now(name):g} {name}" for name in asked)
    holds = f"{where} holds {now} on {len(capacity.nodes)} {'node' if len(capacity.nodes) == 1 else 'nodes'}"
    if capacity.types:
        grown = ", ".join(f"{kind.most} × {kind.name} ({_listed(kind.resources)})" for kind in capacity.types)
        holds += f" and may grow to {grown}; at its most it has"
        remedy = "raise the limits of the cluster"
    else:
        holds += ","
        remedy = "add nodes"
    raise ConfigError(
        f"{workers.fewest} workers with {size} each do not fit: {holds} room for {room:g}. Lower --ray.num_workers (or "
        f"--ray.resources_per_worker), or {remedy}."
    )


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if "memory" not in name) or "-"


def may_grow() -> bool:
    """Whether an autoscaler may add nodes, so that what is there now says little."""
    return capacity_now().grows


def cpus_to_claim(workers: Workers, *, rollout_cpus: float = 0.0) -> int:
    """CPUs of a Ray started here: the machine's, and at least a decode actor beside every worker, and the rollouts'."""
    training = math.ceil(workers.count * workers.resources.get("CPU", 0))
    return max(available_cpus(), training + workers.count + math.ceil(rollout_cpus))


def object_store_bytes(config: RayConfig, num_workers: int) -> int:
    """The object store of a Ray started here."""
    if config.object_store_gb is not None:
        return int(config.object_store_gb * 1e9)
    room = 0.3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if os.path.isdir("/dev/shm"):  # beyond it Ray would fall back to the disk
        room = min(room, 0.5 * shutil.disk_usage("/dev/shm").free)
    return max(STORE_SMALLEST_BYTES, min(STORE_PER_WORKER_BYTES * num_workers, int(room)))
