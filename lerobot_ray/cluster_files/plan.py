"""What a cluster file will start, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lerobot_ray.cluster_files.findings import Path


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes of one kind."""

    name: str
    path: Path
    resources: Mapping[str, float] | None = None
    """What a node offers to Ray; None: left to the cloud to know."""
    machine: str = ""
    """The instance type, if the file names one."""
    fewest: int = 0
    most: int = 0
    is_spot: bool = False
    priority: int = 0
    idle_s: float | None = None
    image: str = ""
    image_path: Path = ()

    @property
    def cpus(self) -> float:
        return (self.resources or {}).get("CPU", 0)

    @property
    def gpus(self) -> float:
        return (self.resources or {}).get("GPU", 0)

    @property
    def offer(self) -> str:
        """`8 CPUs, 1 GPU`."""
        if self.resources is None:
            return ""
        parts = [f"{self.cpus:g} CPU{'s' if self.cpus != 1 else ''}" if self.cpus else ""]
        parts.append(f"{self.gpus:g} GPU{'s' if self.gpus != 1 else ''}" if self.gpus else "")
        return ", ".join(part for part in parts if part) or "no CPUs for work"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that the file brings along, which ends the cluster when it ends."""

    command: str
    ends_cluster: bool
    lingers_s: float = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """One cluster."""

    kind: str
    """`ray up on AWS`, `KubeRay`."""
    name: str
    head: Group | None
    workers: tuple[Group, ...] = ()
    most_workers: int | None = None
    """Limit over all groups; None: none beyond each group's own."""
    idle_s: float | None = None
    grows: bool = True
    """Whether an autoscaler is on."""
    has_token: bool = False
    token_path: Path = ()
    shared_folder: str = ""
    job: Job | None = None
    root: Path = ()
    """Where the cluster's fields begin in the document."""
