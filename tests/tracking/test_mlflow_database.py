"""A process may end while MLflow's database is made: the next one makes it."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from lerobot_ray.tracking.mlflow import MlflowTracker
from lerobot_ray.tracking.protocol import Outcome
from tests.tracking.trackers import run_info

START = """
import os, sys, threading, time
from pathlib import Path
from lerobot_ray.tracking.mlflow import MlflowTracker, resolve_tracking_uri
from lerobot_ray.tracking.protocol import Outcome, RunInfo

folder, is_killed = Path(sys.argv[1]), sys.argv[2] == "killed"

def kill_when_something_is_written():
    while not any(path.stat().st_size for path in folder.rglob("*") if path.is_file()):
        time.sleep(0.002)
    os.kill(os.getpid(), 9)

if is_killed:
    threading.Thread(target=kill_when_something_is_written, daemon=True).start()
uri = resolve_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}", folder, {})
tracker = MlflowTracker(uri, experiment="robots", system_metrics=False)
tracker.start(RunInfo(output_dir=folder / str(os.getpid()), name="act"))
tracker.close(Outcome())
"""


def start_in(folder, how: str) -> int:
    return subprocess.run([sys.executable, "-c", START, str(folder), how], timeout=120, check=False).returncode


def number_of_runs(folder) -> int:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return database.execute("select count(*) from runs").fetchone()[0]


def test_a_process_killed_while_it_is_made_leaves_nothing_in_the_way(tmp_path):
    assert start_in(tmp_path, "killed") == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="robots", system_metrics=False)
    tracker.start(run_info(tmp_path))
    tracker.close(Outcome())
    assert number_of_runs(tmp_path) == 1
    assert not list(tmp_path.glob(".mlflow-*"))


def test_two_processes_at_once_make_one_between_them(tmp_path):
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: start_in(tmp_path, "to its end"), range(2))) == [0, 0]
    assert number_of_runs(tmp_path) == 2
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", unsupported)
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="robots", system_metrics=False)
    tracker.start(run_info(tmp_path))
    tracker.close(Outcome())
    assert number_of_runs(tmp_path) == 1
    assert not list(tmp_path.glob(".mlflow-*"))
