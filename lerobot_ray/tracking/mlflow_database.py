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
from tempfile import TemporaryDirectory

import psutil

PREFIX = ".mlflow-"


def make_database(path: Path, *, artifacts: Path) -> None:
    """A new database at `path`, unless there is one. Two processes at once make one between them."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    mine = f"{PREFIX}{socket.gethostname()}-"
    _remove_leftovers(path.parent, mine)
    with TemporaryDirectory(prefix=f"{mine}{os.getpid()}-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        SqlAlchemyStore(f"sqlite:///{whole}", artifacts.as_uri())._dispose_engine()
        with contextlib.suppress(OSError):  # it is there by now; or this file system has no links, and MLflow makes it
            os.link(whole, path)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    """What processes of this machine have left that ended before they were done."""
    for folder in parent.glob(f"{prefix}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(prefix).partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
