"""Where decode actors go: CPU-only nodes before the CPUs of GPU nodes, near the training process before far from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NODE = "ray.io/node-id"


def this_node() -> str:
    """The id of the node this process is on."""
    import ray

    return ray.get_runtime_context().get_node_id()


@dataclass(frozen=True)
class Placement:
    """Ray's arguments for a task or an actor: a first choice, and what follows when it has no room."""

    first: dict[str, str]
    then: tuple[dict[str, str], ...]

    def as_arguments(self) -> dict[str, Any]:
        fallback = [{"label_selector": labels} for labels in self.then]
        return {"label_selector": self.first, "fallback_strategy": fallback}


def place_decoders(
    here: str, *, gpu_nodes: Iterable[str], has_cpu_only: bool, labels: Mapping[str, str] | None = None
) -> Placement:
    """The placement of decode actors for a training process on node `here`.

    Training on CPUs, or where every node has GPUs, the nearest CPUs are best: blocks then reach the process through
    shared memory. Beside GPU nodes, CPU-only nodes come first, those that the autoscaler may still start included:
    they are named by what they are not, for nobody knows their ids yet.
    """
    wanted, crowded = dict(labels or {}), sorted(gpu_nodes)
    if here in crowded and has_cpu_only:
        first = {NODE: f"!in({','.join(crowded)})", **wanted}
        return Placement(first, ({NODE: here, **wanted}, wanted))
    return Placement({NODE: here, **wanted}, (wanted,))
