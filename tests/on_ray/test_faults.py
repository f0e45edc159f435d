"""Runs that something happens to: they go on, and what they trained on is what an unbroken run trains on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints, verify
from tests.make_dataset import make_dataset
from tests.on_ray.runs import (
    assert_same_run,
    beside,
    command,
    kill_training_workers,
    losses,
    reached,
    run_here,
    samples,
    start_apart,
    starts,
    training_workers,
    wait_until,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 60
SEED = int(os.environ.get("FAULT_SEED", "0"))
"""Which moments processes are killed at."""
LONG_S = 240.0


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset of small frames and four files."""
    cameras = {"observation.images.front": (32, 48)}
    return make_dataset(tmp_path_factory.mktemp("small") / "ds", cameras=cameras, files="many")


@pytest.fixture(scope="module")
def unbroken(ray_cluster, root, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("unbroken") / "run"
    assert run_here(command(root, output_dir, f"--steps={STEPS}", "--num_workers=0")) == 0
    return output_dir


SHARDED = ["--ray.num_workers=2", "--batch_size=2", "--parallelism.dp_shard=2", "--checkpoint_format=safetensors_dcp"]


@pytest.mark.parametrize("parallel", [[], SHARDED], ids=["one file", "shares of two ranks"])
def test_killed_inside_a_save_and_at_a_random_moment(unbroken, root, tmp_path, parallel):
    output_dir, draw = tmp_path / "run", random.Random(SEED)

    def is_saving() -> bool:
        return any((output_dir / "checkpoints").glob(".writing-*"))

    def kill_twice() -> None:
        wait_until(lambda: complete_checkpoints(output_dir), within_s=LONG_S)
        wait_until(is_saving, within_s=LONG_S)
        time.sleep(draw.uniform(0, 0.1))
        first = kill_training_workers()
        assert first
        wait_until(lambda: len(starts(output_dir)) == 2 or reached(output_dir, STEPS), within_s=LONG_S)
        time.sleep(draw.uniform(0, 2))
        kill_training_workers()

    with beside(kill_twice):
        flags = [f"--steps={STEPS}", "--save_freq=3", "--num_workers=0", "--ray.max_failures=5", *parallel]
        assert run_here(command(root, output_dir, *flags)) == 0
    assert len(starts(output_dir)) >= 2
    for path in complete_checkpoints(output_dir):
        verify(path)
    assert not list((output_dir / "checkpoints").glob(".*"))
    assert np.array_equal(samples(output_dir), samples(unbroken))
    if not parallel:  # two ranks draw other dropout than one
        assert_same_run(output_dir, unbroken, step=STEPS)
        assert losses(output_dir) == losses(unbroken)


def test_killed_while_the_workers_start(ray_cluster, root, tmp_path):
    """One of two, about when they look for each other: Ray Train alone would end the run."""
    output_dir, draw = tmp_path / "run", random.Random(SEED)

    def have_torch() -> bool:
        pids = training_workers()
        return len(pids) == 2 and all("libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text() for pid in pids)

    def kill_one() -> None:
        wait_until(have_torch, within_s=LONG_S)
        time.sleep(draw.uniform(0, 1.5))
        os.kill(draw.choice(training_workers()), signal.SIGKILL)

    with beside(kill_one):
        flags = ["--ray.num_workers=2", "--num_workers=0", "--steps=8", "--save_freq=1000"]
        assert run_here(command(root, output_dir, *flags)) == 0
    assert np.array_equal(samples(output_dir)[0], np.arange(8 * 8))


def test_told_to_go_while_an_episode_cannot_be_read(ray_cluster, root, tmp_path):
    """SIGTERM to one of two workers is no failure. The dropped episode stays dropped, the run is one run in MLflow."""
    broken_root, output_dir, steps = shutil.copytree(root, tmp_path / "ds"), tmp_path / "run", 80
    broken = sorted((broken_root / "videos").rglob("*.mp4"))[1]
    broken.write_bytes(broken.read_bytes()[:200])

    def tell_one_to_go() -> None:
        wait_until(lambda: reached(output_dir, 12), within_s=LONG_S)
        os.kill(training_workers()[0], signal.SIGTERM)

    with beside(tell_one_to_go):
        flags = ["--ray.num_workers=2", "--num_workers=0", f"--steps={steps}", "--save_freq=1000"]
        flags += ["--mlflow.enable=true", "--dataset.on_bad_episode=skip", "--ray.max_failures=0"]
        assert run_here(command(broken_root, output_dir, *flags)) == 0
    saved, last = complete_checkpoints(output_dir)
    assert starts(output_dir) == [0, int(saved.name)]
    q, _, episode, _ = samples(output_dir)
    assert np.array_equal(q, np.arange(8 * steps))
    assert 1 not in episode
    dropped = [
        json.loads((path / "training_state/lerobot_ray_state.json").read_text())["order"] for path in (saved, last)
    ]
    ((number, index),) = dropped[0]["dropped_episodes"]
    assert number == 1
    assert index % 8 == 0
    assert dropped[0] == dropped[1]
    with contextlib.closing(sqlite3.connect(output_dir / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)


def test_a_rank_that_stands_still_is_named_within_a_minute(root, tmp_path):
    """Started as by a user, who is told nothing of Ray's password and finds nothing of it in the home folder."""
    output_dir, log, home = tmp_path / "run", tmp_path / "log", tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | {"HOME": str(home)}
    flags = ["--ray.num_workers=2", "--num_workers=0", "--steps=100", "--save_freq=4", "--keep_last=2"]
    driver = start_apart(command(root, output_dir, *flags), log, environment=environment)
    wait_until(lambda: reached(output_dir, 3), within_s=LONG_S)
    frozen = psutil.Process(training_workers(driver.pid)[0])
    frozen.suspend()
    wait_until(lambda: f"process {frozen.pid}) keeps the others waiting" in log.read_text(), within_s=60)
    frozen.resume()
    assert driver.wait(timeout=LONG_S) == 0, log.read_text()
    assert starts(output_dir) == [0]
    assert not (home / ".ray").exists()
    assert "uthentication" not in log.read_text()


def test_a_full_disk_leaves_the_checkpoint_before(ray_cluster, root, tmp_path, capsys):
    output_dir = tmp_path / "disk"
    output_dir.mkdir()
    mount = [shutil.which("mount") or "false", "-t", "tmpfs", "-o", "size=230m", "tmpfs", str(output_dir)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        flags = ["--steps=12", "--save_freq=4", "--num_workers=0"]
        assert run_here(command(root, output_dir / "run", *flags)) == 1
        (kept,) = complete_checkpoints(output_dir / "run")
        verify(kept)
        assert not list(kept.parent.glob(".*"))
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(said) == 1
        assert "MB are free" in said[0]
        assert str(kept) in said[0]
    finally:
        subprocess.run(["umount", "-l", output_dir], check=True)


def test_a_loss_that_is_not_finite(ray_cluster, root, tmp_path, capsys):
    """The run stops and names step, samples and parameters; or the step is skipped and counted."""
    flags = ["--num_workers=0", "--steps=12", "--save_freq=2", "--optimizer.lr=1e30", "--optimizer.grad_clip_norm=0"]
    assert run_here(command(root, tmp_path / "stopped", *flags)) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    step = int(re.search(r"the loss of step (\d+) is not finite", said)[1])
    assert f"Samples at stream indices {4 * step}, {4 * step + 1}, {4 * step + 2}, {4 * step + 3} " in said
    assert "parameters that are not finite: " in said
    assert "--on_nonfinite=skip" in said
    assert run_here(command(root, tmp_path / "skipped", *flags, "--on_nonfinite=skip")) == 0
    lines = [json.loads(line) for line in (tmp_path / "skipped/metrics.jsonl").read_text().splitlines()]
    skipped = [line["train/skipped_steps"] for line in lines if "train/skipped_steps" in line]
    assert len(skipped) == 12
    assert skipped[0] == 0
    assert sum(skipped) >= 8
