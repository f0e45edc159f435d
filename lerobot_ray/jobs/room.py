"""Whether a cluster can ever hold the workers of a run: asked before a job is submitted that would wait for ever.

The run asks again when it starts, with what it then knows (`on_ray/cluster`); here a refusal costs no job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.core.errors import ConfigError


def check_room(config: RayConfig, device: str | None, nodes: Sequence[Mapping[str, float]], *, where: str) -> None:
    """ConfigError when nodes with these resources, and no others to come, cannot hold the workers at once. `device`:
    what `policy.device` was given as."""
    if not nodes:
        raise ConfigError(f"{where} has no node that is alive.")
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    use_gpu = config.use_gpu if config.use_gpu is not None else gpus > 0 and device not in ("cpu", "mps")
    if use_gpu and not gpus:
        raise ConfigError(f"ray.use_gpu=true, but {where} has no GPU. Leave it out to train on CPUs.")
    each = dict(config.resources_per_worker or {"CPU": 1.0})
    if use_gpu:
        each.setdefault("GPU", 1.0)
    each = {name: amount for name, amount in each.items() if amount > 0}
    count = config.num_workers or (gpus if use_gpu else 1)
    wanted = min(config.min_workers or count, count)
    room = sum(fitting(node, each) for node in nodes)
    if wanted <= room:
        return
    holds = ", ".join(f"{sum(node.get(name, 0) for node in nodes):g} {name}" for name in each)
    size = ", ".join(f"{amount:g} {name}" for name, amount in each.items())
    raise ConfigError(
        f"{wanted} workers with {size} each do not fit: {where} holds {holds} on {len(nodes)} "
        f"{'node' if len(nodes) == 1 else 'nodes'}, room for {room}, and does not grow. Lower --ray.num_workers (or "
        "--ray.resources_per_worker), or add nodes."
    )


def fitting(node: Mapping[str, float], each: Mapping[str, float]) -> int:
    """How many workers of this size an empty node holds."""
    return min((math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in each.items()), default=0)
