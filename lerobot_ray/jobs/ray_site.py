"""The cluster behind a job server, for a submission: what its machines see of this one, and what fits on them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lerobot_ray.config.job import JobConfig, timeout_s
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.jobs.deadline import STOP_AFTER_VARIABLE
from lerobot_ray.jobs.secrets import environment_for
from lerobot_ray.jobs.site import Site
from lerobot_ray.on_ray.capacity import Capacity
from lerobot_ray.on_ray.cluster import workers_within
from lerobot_ray.on_ray.job_server import ClusterNode, JobServer, client_version

HOME_THERE = "~/lerobot_ray_runs"
"""Where results go on a cluster that is told of no storage."""
STOP_WAIT_S = 600
"""A stopped job has so long to write its last checkpoint; Ray's own default is three seconds."""


def site_of(server: JobServer, nodes: Sequence[ClusterNode], config: TrainConfig) -> Site:
    """What the cluster's machines see of this one."""
    here = bool(nodes) and all(node.is_this_machine for node in nodes) and not server.grows()
    name = f"the cluster at {server.address}"
    return Site(name=name, is_here=here, mounts=config.job.mounts, home=HOME_THERE)


def check_room(config: TrainConfig, server: JobServer, nodes: Sequence[ClusterNode], *, device: str | None) -> None:
    """ConfigError when the cluster can never hold the workers, which would wait for ever. `device`: what
    `policy.device` was given as. A cluster that grows is asked by the job itself, which knows what may be added."""
    if server.grows():
        return
    now = Capacity(tuple(node.resources for node in nodes))
    workers_within(now, config.ray, device, where=f"the cluster at {server.address}")


def environment_there(
    config: TrainConfig, job: JobConfig, site: Site, *, private: bool, places: Sequence[str] = ()
) -> dict[str, str]:
    """The variables of a job. `places`: what it starts from; `private`: whether that takes a token."""
    variables = environment_for(config, job, private_repos=private, is_here=site.is_here, places=places).all()
    variables["RAY_JOB_STOP_WAIT_TIME_S"] = str(STOP_WAIT_S)
    if (limit := timeout_s(job)) is not None:
        variables[STOP_AFTER_VARIABLE] = f"{limit:g}"
    return variables


def python_there(server: JobServer, site: Site) -> str:
    """This very interpreter where it is the cluster's too; elsewhere the one that its image calls python."""
    return sys.executable if site.is_here and server.ray_version == client_version() else "python"
