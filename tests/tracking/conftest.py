"""An MLflow store, made once for all tests of trackers."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEW_STORE = """
import logging, os, socket, time
asked = []
def refuse(*arguments, **_):
    asked.append(arguments)
    raise OSError("no network")
socket.getaddrinfo = refuse
socket.socket.connect = lambda self, address: refuse(address)
logging.basicConfig(level=logging.INFO)
from pathlib import Path
from lerobot_ray.tracking.mlflow import MlflowTracker, resolve_tracking_uri
from lerobot_ray.tracking.protocol import Outcome, RunInfo
folder = Path("run").absolute()
tracker = MlflowTracker(resolve_tracking_uri(None, folder, {}), experiment="first")
tracker.start(RunInfo(output_dir=folder, name="act"))
tracker.log({"train/loss": 1.0}, step=1)
time.sleep(1)
tracker.close(Outcome())
import mlflow
assert mlflow.active_run() is None
assert not asked, asked
"""


@pytest.fixture(scope="session")
def new_store(tmp_path_factory):
    """A run into a new store, by a process that gets no connection and no name looked up: once, migrations take long.

    Without this process's variables, because MLflow keeps quiet by itself under pytest and in CI.
    """
    folder = tmp_path_factory.mktemp("store")
    (folder / "run").mkdir()
    environment = {"PATH": "/usr/bin:/bin", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", NEW_STORE], text=True, capture_output=True, timeout=120, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture
def empty_store(new_store):
    """The bytes of a database that has MLflow's tables and no experiment that these tests use."""
    return (new_store[0] / "run" / "mlflow.db").read_bytes()


@pytest.fixture
def store(tmp_path, empty_store) -> str:
    (tmp_path / "mlflow.db").write_bytes(empty_store)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
