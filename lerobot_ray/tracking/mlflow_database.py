"""MLflow's database file: with all its tables, or not there.

MLflow makes a new one in dozens of steps, over seconds. A process that ends in between leaves a file with which no
later one can work ("table spans already exists"). So a new one is made in a folder beside, and linked to its place when
it is whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path

import psutil

PREFIX = ".mlflow-"


def make_database(path: Path, *, artifacts: Path) -> None:
    """A new database at `path`, unless there is one. Two processes at once make one between them."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    folder = path.parent / f"{PREFIX}{socket.gethostname()}-{os.getpid()}"
    folder.mkdir()
    try:
        SqlAlchemyStore(f"sqlite:///{folder / path.name}", artifacts.as_uri())._dispose_engine()
        with contextlib.suppress(FileExistsError):
            os.link(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """What processes of this machine have left that ended before they were done."""
    for folder in parent.glob(f"{PREFIX}{socket.gethostname()}-*"):
        process = int(folder.name.rpartition("-")[2])
        if process == os.getpid() or not psutil.pid_exists(process):
            shutil.rmtree(folder, ignore_errors=True)
