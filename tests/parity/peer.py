"""Runs a script of `tests/parity/scripts` under the interpreter that has lerobot, named by PEER_PYTHON."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent / "scripts"


def peer_python() -> str:
    """The interpreter; the test is skipped without one."""
    python = os.environ.get("PEER_PYTHON", "")
    if not python:
        pytest.skip("set PEER_PYTHON to an interpreter that has lerobot 0.6.1")
    return python


def run_peer(script: str, *arguments: Any, environment: dict[str, str] | None = None) -> str:
    """Runs the script and returns what it printed; its whole output is in the failure otherwise.

    It is offline unless `environment` says otherwise.
    """
    return _run([peer_python(), str(SCRIPTS / script), *map(str, arguments)], environment)


def run_lerobot_train(**flags: Any) -> str:
    """`lerobot-train` of the peer; `dataset__root=…` is `--dataset.root=…`."""
    return run_lerobot("train", **flags)


def run_lerobot(name: str, **flags: Any) -> str:
    """`lerobot-<name>` of the peer."""
    words = [f"--{flag.replace('__', '.')}={value}" for flag, value in flags.items()]
    return _run([peer_python(), "-m", f"lerobot.scripts.lerobot_{name}", *words])


def peer_has(module: str) -> bool:
    env = {**os.environ, "PYTHONPATH": os.environ.get("PEER_PYTHONPATH", "")}
    return (
        subprocess.run([peer_python(), "-c", f"import {module}"], env=env, capture_output=True, check=False).returncode
        == 0
    )


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false"}
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if path := os.environ.get("PEER_PYTHONPATH"):  # packages the interpreter lacks, transformers for one
        kept["PYTHONPATH"] = path
    done = subprocess.run(
        command, env=kept | offline | (environment or {}), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
