"""The Ray cluster a run uses, the one it is told of or one started here; and what fits on it."""

from __future__ import annotations

import json
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

logger = logging.getLogger(__name__)

STORE_PER_WORKER_BYTES = int(1.5e9)
"""Object store that one worker's blocks in flight are given on a Ray that is started here, where memory allows."""
STORE_SMALLEST_BYTES = 100 << 20


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
def connected(config: RayConfig, workers_if_local: Workers | None) -> Iterator[None]:
    """Within the block this process is connected to Ray. What was started here is stopped again, nothing else is."""
    if _is_initialized():  # a notebook's, a test's
        yield
        return
    address = address_of(config)
    is_started_here = address is None or address == "local"
    if is_started_here:
        _bring_a_token()
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if is_started_here:
        assert workers_if_local is not None
        os.environ.setdefault("RAY_enable_metrics_collection", "0")  # nobody reads them, and they cost decoding 3 %
        ray.init(
            address="local",
            num_cpus=cpus_to_claim(workers_if_local),
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


def _bring_a_token() -> None:
    """A password for the Ray to be started here, known to this process and its children alone.

    Without one Ray writes a token into the user's home and says so at every start. Ray reads these when it is imported.
    """
    if not any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def workers_here(config: RayConfig, policy_device: str | None) -> Workers:
    """The workers of a run on this machine alone."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return _workers(config, policy_device, gpus=gpus, where="this machine", nodes=None if not gpus else [{"GPU": gpus}])


def workers_on_cluster(config: RayConfig, policy_device: str | None) -> Workers:
    """The workers of a run on the cluster this process is connected to; ConfigError if it can never hold them."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    return _workers(config, policy_device, gpus=gpus, where="the cluster", nodes=None if may_grow() else nodes)


def _workers(
    config: RayConfig,
    policy_device: str | None,
    *,
    gpus: int,
    where: str,
    nodes: list[dict[str, float]] | None,
) -> Workers:
    use_gpu = config.use_gpu
    if use_gpu is None:
        use_gpu = gpus > 0 and policy_device not in ("cpu", "mps")
        if policy_device == "cuda" and not use_gpu:
            logger.warning("policy.device=cuda, but %s has no GPU: training on CPUs", where)
    resources = config.resources_per_worker or ({"CPU": 1.0, "GPU": 1.0} if use_gpu else {"CPU": 1.0})
    if use_gpu:
        resources = {"GPU": 1.0, **resources}
        if (not gpus and nodes is not None) or (not gpus and where == "this machine"):
            raise ConfigError(
                f"ray.use_gpu=true, but {where} has no GPU. Leave it out to train on CPUs, or start where there is one."
            )
    count = config.num_workers or (max(1, gpus) if use_gpu else 1)
    fewest = config.min_workers or count
    if nodes is not None:
        _check_room(min(fewest, count), resources, nodes, where)
    return Workers(count=count, fewest=min(fewest, count), use_gpu=use_gpu, resources=resources)


def _check_room(wanted: int, resources: Mapping[str, float], nodes: list[dict[str, float]], where: str) -> None:
    """ConfigError unless so many workers fit on the nodes at once."""
    asked = {name: amount for name, amount in resources.items() if amount > 0 and any(name in node for node in nodes)}
    if where == "this machine":  # its CPUs are shared as the user likes
        asked.pop("CPU", None)
    else:
        asked = {name: amount for name, amount in resources.items() if amount > 0}
    if not asked:
        return
    room = sum(min(math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in asked.items()) for node in nodes)
    if wanted <= room:
        return
    holds = {name: sum(node.get(name, 0) for node in nodes) for name in asked}
    listed = ", ".join(f"{amount:g} {name}" for name, amount in holds.items())
    each = ", ".join(f"{amount:g} {name}" for name, amount in asked.items())
    raise ConfigError(
        f"{wanted} workers with {each} each do not fit: {where} holds {listed} on {len(nodes)} "
        f"{'node' if len(nodes) == 1 else 'nodes'}, room for {room}. Lower --ray.num_workers (or "
        "--ray.resources_per_worker), or add nodes."
    )


def may_grow() -> bool:
    """Whether an autoscaler may add nodes, so that what is there now says little.

    Ray's monitor runs without one too, and then gives each node a type of its own, called after the node.
    """
    from ray.experimental.internal_kv import _internal_kv_get

    if _internal_kv_get(b"__autoscaler_v2_enabled") in (b"1", b"true", b"True"):
        return True
    report = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}").get("autoscaler_report") or {}
    types = report.get("node_type_mapping") or {}
    return any(node_type != f"node_{node}" for node, node_type in types.items())


def cpus_to_claim(workers: Workers) -> int:
    """CPUs of a Ray started here: the machine's, and at least a decode actor beside every worker."""
    training = math.ceil(workers.count * workers.resources.get("CPU", 0))
    return max(available_cpus(), training + workers.count)


def object_store_bytes(config: RayConfig, num_workers: int) -> int:
    """The object store of a Ray started here."""
    if config.object_store_gb is not None:
        return int(config.object_store_gb * 1e9)
    room = 0.3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if os.path.isdir("/dev/shm"):  # beyond it Ray would fall back to the disk
        room = min(room, 0.5 * shutil.disk_usage("/dev/shm").free)
    return max(STORE_SMALLEST_BYTES, min(STORE_PER_WORKER_BYTES * num_workers, int(room)))
