"""Sweeps for tests: files, plans without a cluster, command lines of tiny ones, and what they leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lerobot_ray.sweeps.journal import read_journal
from lerobot_ray.sweeps.plan import SweepPlan, settle_sweep
from tests.on_ray.runs import TINY_ACT

LIGHT = ["--dataset.repo_id=tests/toy", "--policy.type=act", "--policy.device=cpu", "--steps=100"]
"""Training flags that are parsed and never trained with."""
USUAL: Mapping[str, Any] = {
    "metric": "train/loss",
    "mode": "min",
    "num_trials": 4,
    "parameters": {"optimizer.lr": "loguniform(1e-5, 1e-1)"},
}


def write_sweep(folder: Path, **changes: Any) -> Path:
    """A sweep file; a change to None takes the key out."""
    values = {key: value for key, value in {**USUAL, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def plan_of(folder: Path, *words: str, seeds: int = 1, resume: bool = False, **changes: Any) -> SweepPlan:
    """A sweep settled over light flags."""
    file = write_sweep(folder, **changes)
    return settle_sweep(file, [*LIGHT, *words], folder=folder / "out", seeds=seeds, resume=resume)


def command(root: Path, file: Path, output_dir: Path, *flags: str) -> list[str]:
    """The arguments of a tiny sweep on the dataset at `root`."""
    own = {flag.split("=")[0] for flag in flags}
    usual = [
        f"--sweep={file}",
        f"--output_dir={output_dir}",
        "--dataset.repo_id=tests/toy",
        f"--dataset.root={root}",
        *TINY_ACT,
        "--batch_size=4",
        "--steps=12",
        "--log_freq=4",
        "--save_freq=4",
        "--mlflow.enable=false",
    ]
    return [*(flag for flag in usual if flag.split("=")[0] not in own), *flags]


def start_apart(arguments: list[str], log: Path) -> subprocess.Popen:
    """The sweep as a user starts it: a process of its own, which starts a Ray of its own."""
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "lerobot_ray.tune", *arguments], stdout=out, stderr=out)


def table(output_dir: Path) -> list[str]:
    return (output_dir / "trials.txt").read_text().splitlines()


def events(output_dir: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_journal(output_dir) if event["event"] == kind]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
