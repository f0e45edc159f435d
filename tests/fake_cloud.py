"""A cluster that really grows: a Ray head whose autoscaler starts raylets on this machine in place of cloud machines.

Ray brings the provider for it (`fake_multi_node`). Ray's own way to start it, `AutoscalingCluster`, begins and ends
with `ray stop`, which kills every Ray of the machine; here the head is a child process, and what ends is what it
started.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
"""The provider knows its head by these."""
STORE_BYTES = 100 << 20
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


@contextmanager
def fake_cloud(node_types: Mapping[str, Mapping[str, Any]], *, idle_s: float, most: int) -> Iterator[str]:
    """The address of a head without CPUs that starts nodes of these types when work asks for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray_", dir="/tmp", ignore_cleanup_errors=True) as folder:
        config = Path(folder) / "autoscaling.json"
        config.write_text(json.dumps(_config(node_types, port=port, idle_s=idle_s, most=most)))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
        command += ["--num-cpus=0", "--num-gpus=0", f"--object-store-memory={STORE_BYTES}", f"--temp-dir={folder}"]
        command += ["--include-dashboard=false", "--disable-usage-stats", f"--autoscaling-config={config}"]
        environment = {
            **os.environ,
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_NODE_TYPE_NAME": HEAD_TYPE,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
        log = Path(folder) / "head.log"
        with log.open("w") as out:
            head = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            _wait_for(port, head, log)
            yield f"127.0.0.1:{port}"
        finally:
            _end(head)


def _wait_for(port: int, head: subprocess.Popen, log: Path, *, within_s: float = 120.0) -> None:
    """Until the head listens. Ray's client waits a minute for a head that is not there yet, then ends the process."""
    deadline = time.monotonic() + within_s
    while head.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError(f"the head did not come up:\n{log.read_text()[-3000:]}")


def _end(head: subprocess.Popen) -> None:
    try:
        started = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in started:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(started, timeout=10)
    head.wait(timeout=10)


def _config(node_types: Mapping[str, Mapping[str, Any]], *, port: int, idle_s: float, most: int) -> dict[str, Any]:
    types = {
        name: {
            "resources": {**body["resources"], "object_store_memory": STORE_BYTES},
            "node_config": {},
            **{key: value for key, value in body.items() if key != "resources"},
        }
        for name, body in node_types.items()
    }
    types[HEAD_TYPE] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands")
    lists += ("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    return {
        "cluster_name": "fake",
        "max_workers": most,
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "available_node_types": types,
        "head_node_type": HEAD_TYPE,
        **{name: [] for name in lists},
    }
