"""Real heads with a job server, each on ports and in a folder of its own, ended by their own process ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.namespaces import on_a_machine_called

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Head:
    address: str
    environment: Mapping[str, str]
    """For processes that talk to it."""
    gcs_address: str
    """For drivers that join the cluster."""
    pid: int
    """Everything it has started descends from this process."""

    def run(
        self, *words: str, cwd: Path, timeout: float = 240, host: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`lerobot_ray.submit`, on this machine or on one that has another name."""
        command = [sys.executable, "-m", "lerobot_ray.submit", *words]
        return subprocess.run(
            command if host is None else on_a_machine_called(host, *command),
            cwd=cwd,
            env=dict(self.environment),
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *words: str, cwd: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lerobot_ray.submit", *words],
            cwd=cwd,
            env=dict(self.environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@contextlib.contextmanager
def running_head(*, token: str = "", num_cpus: int = 4) -> Iterator[Head]:
    """Within the block a head runs, with token authentication if there is a token."""
    folder = Path(tempfile.mkdtemp(prefix="lrj_", dir="/tmp"))  # short: paths of sockets may have 107 characters
    gcs, dashboard, agent, grpc, metrics, client = free_ports(6)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the environment is active
    environment = {**os.environ, **own, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={gcs}"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--dashboard-agent-grpc-port={grpc}", f"--metrics-export-port={metrics}"),
        *(f"--ray-client-server-port={client}", f"--temp-dir={folder}", f"--num-cpus={num_cpus}"),
        "--object-store-memory=200000000",
    ]
    log = folder / "head.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for_nodes(address, token, log, process)
        yield Head(address, environment, f"127.0.0.1:{gcs}", process.pid)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_nodes(address: str, token: str, log: Path, process: subprocess.Popen, *, within_s: float = 120) -> None:
    """Until the job server is there and knows of the head's own node with all that is asked of it."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    deadline = time.monotonic() + within_s
    while True:
        request = urllib.request.Request(f"{address}/nodes?view=summary", headers=headers)
        with contextlib.suppress(OSError, urllib.error.URLError):
            if b'"sessionDir"' in urllib.request.urlopen(request, timeout=10).read():
                return
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def end(process: subprocess.Popen) -> None:
    """Ends a head and everything it has started, at once: asked politely it drains for half a minute."""
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(tree, timeout=20)
    process.wait(20)


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
