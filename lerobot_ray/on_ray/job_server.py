"""The job server of a Ray cluster over HTTP: what the cluster is, and the jobs on it.

Needs nothing but the address (and a token where the cluster asks for one); this process does not join the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version

from lerobot_ray.core.errors import ConfigError, JobError

OLDEST_RAY = "2.60"
"""What pyproject.toml asks for."""
CONNECT_TIMEOUT_S = 10
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class ClusterNode:
    """One machine, or one container, of a cluster."""

    ip: str
    hostname: str
    session_dir: str
    is_head: bool
    resources: Mapping[str, float]

    @property
    def is_this_machine(self) -> bool:
        """Whether it shares this process's file system: its session folder lies here under the same name."""
        return self.hostname == socket.gethostname() and bool(self.session_dir) and Path(self.session_dir).is_dir()


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job as its server tells of it."""

    id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED"""
    message: str = ""
    exit_code: int | None = None
    """Of its command; None while it runs, and when it had no time to say."""
    entrypoint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    start_time_ms: int | None = None
    end_time_ms: int | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class JobServer:
    """A connection to a job server. ConfigError says why there is none; later calls raise JobError."""

    def __init__(self, address: str | None) -> None:
        """`address`: http://host:8265, or what ray.init takes; None: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else a
        cluster of this machine."""
        with _no_other_address(address):
            self._client = _connect(address or _address_in_environment())
        self.address: str = self._client.get_address()
        about = self._get("/api/version")
        self.ray_version: str = about["ray_version"]

    def python_version(self) -> str:
        with contextlib.suppress(JobError):
            return self._get("/api/v0/cluster_metadata")["data"].get("pythonVersion", "")
        return ""

    def nodes(self) -> list[ClusterNode]:
        """The nodes that are alive, head first."""
        listed = self._get("/api/v0/nodes")["data"]["result"]["result"]
        rows = self._get("/nodes?view=summary")["data"]["summary"]
        details = {row["raylet"].get("nodeId"): row for row in rows if row.get("raylet")}
        found = []
        for row in listed:
            if row["state"] != "ALIVE":
                continue
            detail = details.get(row["node_id"], {})
            found.append(
                ClusterNode(
                    ip=row["node_ip"],
                    hostname=detail.get("hostname", ""),
                    session_dir=detail.get("raylet", {}).get("sessionDir", ""),
                    is_head=row["is_head_node"],
                    resources=row["resources_total"],
                )
            )
        return sorted(found, key=lambda node: not node.is_head)

    def grows(self) -> bool:
        """Whether an autoscaler may add nodes. Without one Ray gives each node a type called after the node."""
        report = (self._get("/api/cluster_status")["data"].get("clusterStatus") or {}).get("autoscalerReport") or {}
        if not report.get("legacy", True):
            return True
        return any(kind != f"node_{node}" for node, kind in (report.get("nodeTypeMapping") or {}).items())

    def submit(
        self, entrypoint: str, *, submission_id: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """JobError when the server refuses it. Folders named in `runtime_env` are uploaded first."""
        with _explained(f"the job cannot be submitted to {self.address}"):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
            )

    def job(self, job_id: str) -> JobState:
        """JobError when there is no such job."""
        with _explained(f"{self.address} has no job {job_id} to tell of"):
            return _state(self._client.get_job_info(job_id))

    def jobs(self) -> list[JobState]:
        """Those that were submitted, newest first."""
        with _explained(f"{self.address} does not list its jobs"):
            submitted = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted((_state(job) for job in submitted), key=lambda job: -(job.start_time_ms or 0))

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False when it had ended already."""
        with _explained(f"{job_id} cannot be stopped"):
            return self._client.stop_job(job_id)

    def logs(self, job_id: str) -> str:
        """What a job has said so far."""
        with _explained(f"{self.address} has no log of {job_id}"):
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, write: Callable[[str], None]) -> None:
        """Hands everything a job says to `write`, from its first line, until it ends. JobError when cut off."""

        async def read() -> None:
            async for lines in self._client.tail_job_logs(job_id):
                write(lines)

        with _explained(f"the log of {job_id} broke off"):
            asyncio.run(read())

    def _get(self, path: str) -> Any:
        with _explained(f"{self.address} does not answer {path.partition('?')[0]}"):
            answer = self._client._do_request("GET", path, timeout=30)
            answer.raise_for_status()
            return answer.json()


def check_versions(ours: str, theirs: str, *, address: str) -> str:
    """What to say about a cluster whose Ray is another; empty when it is the same. ConfigError when it is too old."""
    if Version(theirs) < Version(OLDEST_RAY):
        raise ConfigError(
            f"the cluster at {address} runs Ray {theirs}, this machine has Ray {ours}, and lerobot_ray needs "
            f"{OLDEST_RAY} or newer on both. Update the image of the cluster."
        )
    if Version(ours).release[:2] != Version(theirs).release[:2]:
        return f"the cluster at {address} runs Ray {theirs}, this machine has Ray {ours}: the job uses the cluster's"
    return ""


def client_version() -> str:
    """The version of Ray in this process."""
    import ray

    return ray.__version__


def _address_in_environment() -> str | None:
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or None


def _connect(address: str | None) -> Any:
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # they tell of uploads and closed connections
    where = address or "this machine"
    remedy = (
        "Start one (ray start --head, which needs the extra: pip install 'lerobot-ray[cluster]'), or give the address "
        "of its job server: --job.address=http://host:8265"
    )
    if address is not None and urlsplit(address).scheme in _DEFAULT_PORTS:
        _knock(address, remedy)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"the cluster at {where} asks for a token and this shell has none, or another one. Set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), as on the head; docs/security.md says how."
        ) from error
    except (ConnectionError, RuntimeError, ValueError, AssertionError, requests.RequestException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"no job server of a Ray cluster at {where}: {reason} {remedy}.") from error


def _knock(address: str, remedy: str) -> None:
    """ConfigError within seconds when nobody listens there; Ray's client itself waits for minutes."""
    parts = urlsplit(address)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(f"no job server of a Ray cluster at {address}: {error}. {remedy}.") from error


@contextlib.contextmanager
def _no_other_address(address: str | None) -> Iterator[None]:
    """Within the block an address that was given counts: Ray lets the environment overrule it."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    saved = {name: os.environ.pop(name) for name in names if address is not None and name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    import aiohttp
    import requests

    try:
        yield
    except (RuntimeError, ValueError, OSError, requests.RequestException, aiohttp.ClientError) as error:
        if isinstance(error, JobError):
            raise
        reason = str(error).strip() or type(error).__name__
        raise JobError(f"{what}: {reason}") from error


def _state(job: Any) -> JobState:
    return JobState(
        id=job.submission_id or job.job_id or "",
        status=str(getattr(job.status, "value", job.status)),
        message=job.message or "",
        exit_code=job.driver_exit_code,
        entrypoint=job.entrypoint,
        metadata=job.metadata or {},
        start_time_ms=job.start_time,
        end_time_ms=job.end_time,
    )
