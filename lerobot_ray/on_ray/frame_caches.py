"""Memory for decoded frames, given back when a run has ended.

A memory cache is removed by the last process that uses it. Decode actors are killed and cannot, so the driver has every
node look once more.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from lerobot_ray.data.cache_space import purge_unused, space_root
from lerobot_ray.data.camera_cache import CacheSettings

logger = logging.getLogger(__name__)

PATIENCE_S = 20.0
ACTORS_DIE_S = 3.0
"""How long a killed actor may take to be gone."""


def release_frame_caches(settings: CacheSettings | None) -> None:
    """Remove what the run left in memory on every node, unless another run is using it. Never fails."""
    if settings is None or settings.kind != "memory":
        return
    import ray

    try:
        purge = ray.remote(num_cpus=0, max_retries=0)(purge_here)
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        tasks = [purge.options(label_selector={"ray.io/node-id": node}).remote(settings.directory) for node in nodes]
        ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE_S)
    except Exception as error:  # the run is over, and the next one removes it too
        logger.debug("frame caches were not released: %s", error)


def purge_here(directory: Path | None) -> int:
    """Bytes given back on this node."""
    root, freed = space_root("memory", directory), 0
    give_up = time.monotonic() + ACTORS_DIE_S
    while root.is_dir() and time.monotonic() < give_up:
        freed += purge_unused(root)
        if not any(path.is_dir() for path in root.iterdir()):
            break
        time.sleep(0.2)
    return freed
