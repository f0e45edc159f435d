"""Nodes of a real cluster die, are announced to go, and come: the same global batches throughout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lerobot_ray.tracking.metric_log import load_metrics
from tests.make_dataset import make_dataset
from tests.on_ray.runs import samples

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BEGINNING = """
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
flags = ["--ray.num_workers=4", "--global_batch_size=8", "--batch_size=2", "--num_workers=0", "--save_freq=2"]
flags += ["--keep_last=3", f"--ray.address={cluster.address}"]
"""
ELASTIC = """
flags += ["--steps=100000", "--ray.min_workers=2", "--ray.resize_interval_s=5"]
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
FIXED = """
flags += ["--steps=40"]
driver = start_apart(command(root, output_dir, *flags), log)
try:
    wait_until(lambda: reached(output_dir, 3), within_s=240)
    cluster.remove_node(second, allow_graceful=False)
    wait_until(lambda: "waiting for 4 workers" in log.read_text(), within_s=120)
    cluster.add_node(**node)
    assert driver.wait(timeout=240) == 0
finally:
    driver.kill()
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset of small frames."""
    cameras = {"observation.images.front": (32, 48)}
    return make_dataset(tmp_path_factory.mktemp("small") / "ds", cameras=cameras, files="many")


def played(story: str, root: Path, folder: Path) -> Path:
    """The output folder of the run in a story, which has come to its end."""
    output_dir, log = folder / "run", folder / "log"
    quick = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
    arguments = [sys.executable, "-c", BEGINNING + story, str(root), str(output_dir), str(log)]
    done = subprocess.run(arguments, env=os.environ | quick, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + log.read_text()[-5000:]
    return output_dir


def world_sizes_of_an_unbroken_sequence(output_dir: Path) -> list[int]:
    """Of every start, also of one whose steps were trained again."""
    q, step, _, _ = samples(output_dir)
    assert np.array_equal(q, np.arange(len(q)))
    assert np.array_equal(step, q // 8)
    return [attempt.info["world_size"] for attempt in load_metrics(output_dir).attempts]


def test_four_workers_then_two_then_four(root, tmp_path):
    output_dir = played(ELASTIC, root, tmp_path)
    assert world_sizes_of_an_unbroken_sequence(output_dir)[:3] == [4, 2, 4]
    *meanwhile, at_the_end = (tmp_path / "log").read_text().split("will be taken away")
    assert meanwhile
    assert "stopped as asked" not in "".join(meanwhile)
    assert "stopped as asked" in at_the_end


def test_a_run_of_fixed_size_waits_for_another_node(root, tmp_path):
    assert world_sizes_of_an_unbroken_sequence(played(FIXED, root, tmp_path)) == [4, 4]
