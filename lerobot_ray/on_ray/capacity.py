"""What a cluster holds now, and what its autoscaler could add."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Resources = Mapping[str, float]
GROUP = "ray.io/node-group"
"""Label of nodes that an autoscaler knows, by name of their type."""


@dataclass(frozen=True)
class NodeType:
    """Nodes the autoscaler may start."""

    name: str
    resources: Resources
    most: int | None
    """None: as many as it likes."""


@dataclass(frozen=True)
class Capacity:
    """A cluster's nodes, and the types it may add. `types` is empty where nobody here knows what may be added."""

    nodes: tuple[Resources, ...]
    types: tuple[NodeType, ...] = ()
    grows: bool = False
    most_added: int | None = None
    """Nodes the autoscaler may start, of all types together; None: no limit beyond theirs."""

    def now(self, resource: str) -> float:
        return sum(node.get(resource, 0) for node in self.nodes)

    def at_most(self, resource: str) -> float:
        """What it holds when fully grown."""
        return max(self.now(resource), self._grown({kind.name: kind.resources.get(resource, 0) for kind in self.types}))

    def room(self, each: Resources) -> int:
        """Workers of this size that the nodes of now hold, when empty."""
        return sum(fitting(node, each) for node in self.nodes)

    def room_at_most(self, each: Resources) -> float:
        """Workers of this size on a fully grown cluster."""
        return max(self.room(each), self._grown({kind.name: fitting(kind.resources, each) for kind in self.types}))

    def _grown(self, per_node: Mapping[str, float]) -> float:
        """The most that a full-grown cluster has of something, taking the types with most of it first."""
        total, left = 0.0, math.inf if self.most_added is None else self.most_added
        for kind in sorted(self.types, key=lambda kind: -per_node[kind.name]):
            count = min(left, math.inf if kind.most is None else kind.most)
            total += count * per_node[kind.name] if per_node[kind.name] else 0
            left -= count
        return total


def fitting(node: Resources, each: Resources) -> int:
    """How often `each` fits on a node."""
    asked = {name: amount for name, amount in each.items() if amount > 0}
    return min((math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in asked.items()), default=0)


def capacity_now() -> Capacity:
    """Of the cluster this process is connected to."""
    import ray

    nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
    config = _autoscaling_config()
    if config:
        types = types_of(config)
        return Capacity(nodes, types, bool(types), config.get("max_workers"))
    return Capacity(nodes, (), _has_autoscaler())


def types_of(config: Mapping[str, Any]) -> tuple[NodeType, ...]:
    """What an autoscaler with this configuration (a file for `ray up`) may start."""
    head, limit = config.get("head_node_type"), config.get("max_workers", 2)
    found = (
        NodeType(name, body.get("resources") or {}, body.get("max_workers", limit))
        for name, body in (config.get("available_node_types") or {}).items()
        if name != head
    )
    return tuple(kind for kind in found if kind.most != 0)


def _autoscaling_config() -> dict[str, Any]:
    """The autoscaler's own file, where this process runs on the head, as jobs do; empty anywhere else.

    Ray publishes what its autoscaler is doing, not what it may do.
    """
    import psutil
    import ray

    port = ray.get_runtime_context().gcs_address.rsplit(":", 1)[-1]
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        path = options.get("--autoscaling-config")
        if path and options.get("--gcs-address", "").rsplit(":", 1)[-1] == port:
            with contextlib.suppress(OSError, yaml.YAMLError):
                return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8")) or {}
    return {}


def _has_autoscaler() -> bool:
    """Whether an autoscaler runs somewhere. Ray's monitor runs without one too, and then knows no groups of nodes."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    with contextlib.suppress(Exception):  # an older head
        if is_autoscaler_v2(fetch_from_server=True):
            return any(GROUP in (node.get("Labels") or {}) for node in ray.nodes() if node["Alive"])
    types = _older_report().get("node_type_mapping") or {}
    return any(node_type != f"node_{node}" for node, node_type in types.items())


def _older_report() -> dict[str, Any]:
    """Of Ray's first autoscaler."""
    from ray.experimental.internal_kv import _internal_kv_get

    return json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}").get("autoscaler_report") or {}


def being_started() -> str:
    """What the autoscaler is doing about it, in words: `2 × gpu are being started`; empty when nothing is known."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

    starting: Counter[str] = Counter()
    refused: dict[str, str] = {}
    is_at_its_limits = False
    with contextlib.suppress(Exception):  # a message is not worth a run
        reply = GetClusterStatusReply()
        reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=5))
        state = reply.autoscaling_state
        for node in state.pending_instances:
            starting[node.ray_node_type_name] += 1
        for launch in state.pending_instance_requests:
            starting[launch.ray_node_type_name] += launch.count
        refused = {launch.ray_node_type_name: launch.reason for launch in state.failed_instance_requests}
        is_at_its_limits = bool(state.infeasible_gang_resource_requests)
    with contextlib.suppress(Exception):
        starting.update(_older_report().get("pending_launches") or {})
    head = {name for name in starting if "head" in name}
    return in_words({name: count for name, count in starting.items() if name not in head}, refused, is_at_its_limits)


def in_words(starting: Mapping[str, int], refused: Mapping[str, str], is_at_its_limits: bool) -> str:
    names = sorted(name for name, count in starting.items() if count)
    parts = []
    if names:
        verb = "is" if sum(starting[name] for name in names) == 1 else "are"
        parts.append(f"{', '.join(f'{starting[name]} × {name}' for name in names)} {verb} being started")
    for name, why in sorted(refused.items()):
        parts.append(f"{name} could not be started" + (f" ({why.splitlines()[0]})" if why else ""))
    if is_at_its_limits and not names:
        parts.append(
            "its autoscaler cannot add what this takes now: its limits are reached, or no node is large enough"
        )
    return "; ".join(parts)


def cpu_only_nodes_exist() -> bool:
    """Whether there are nodes with CPUs for work and without GPUs, or the autoscaler can start some."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(node.get("CPU") and not node.get("GPU") for node in nodes) or _has_autoscaler()


def gpu_nodes() -> list[str]:
    """Ids of the nodes that have GPUs, free or not."""
    import ray

    return sorted(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU"))
