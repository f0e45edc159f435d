"""Runs that something happens to: they go on, and what they trained on is what an unbroken run trains on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints, verify
from lerobot_ray.data.audit_check import load_audit
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


def test_killed_inside_a_save_and_at_a_random_moment(unbroken, root, tmp_path):
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
        flags = [f"--steps={STEPS}", "--save_freq=3", "--num_workers=0", "--ray.max_failures=5"]
        assert run_here(command(root, output_dir, *flags)) == 0
    assert len(starts(output_dir)) >= 2
    for path in complete_checkpoints(output_dir):
        verify(path)
    assert not list((output_dir / "checkpoints").glob(".*"))
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


ELASTIC = """
import signal, subprocess, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from tests.on_ray.runs import command, reached, start_apart, starts, wait_until

def is_training(number_of_starts):
    return len(starts(output_dir)) >= number_of_starts and reached(output_dir, starts(output_dir)[-1] + 3)

root, output_dir, log = map(Path, sys.argv[1:])
node = dict(num_cpus=2, object_store_memory=100 << 20)
cluster = Cluster(initialize_head=True, head_node_args=dict(include_dashboard=False, **node))
second = cluster.add_node(**node)
flags = ["--ray.num_workers=4", "--ray.min_workers=2", "--global_batch_size=8", "--batch_size=2", "--num_workers=0"]
flags += ["--steps=100000", "--save_freq=2", "--keep_last=3", "--ray.resize_interval_s=5"]
flags += [f"--ray.address={cluster.address}"]
driver = start_apart(command(root, output_dir, *flags), log)
try:
    wait_until(lambda: reached(output_dir, 3), within_s=240)
    cluster.remove_node(second, allow_graceful=False)
    wait_until(lambda: is_training(2), within_s=240)
    third = cluster.add_node(**node)
    wait_until(lambda: is_training(3), within_s=240)
    drain = ["drain-node", "--address", cluster.address, "--node-id", third.node_id, "--reason-message", "test"]
    drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "120"]
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *drain], check=True)
    wait_until(lambda: "will be taken away" in log.read_text(), within_s=60)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=120) == 128 + signal.SIGTERM
finally:
    driver.kill()
    cluster.shutdown()
"""


def test_four_workers_then_two_then_four(root, tmp_path):
    """A node of a real cluster dies and another one comes: the same global batches throughout."""
    output_dir, log = tmp_path / "run", tmp_path / "log"
    quick = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
    arguments = [sys.executable, "-c", ELASTIC, str(root), str(output_dir), str(log)]
    done = subprocess.run(arguments, env=os.environ | quick, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + log.read_text()[-5000:]
    q, step, _, _ = samples(output_dir)
    assert np.array_equal(q, np.arange(len(q)))
    assert np.array_equal(step, q // 8)
    attempts = load_audit(output_dir).attempts
    assert [attempt.world_size for attempt in attempts][:3] == [4, 2, 4]
