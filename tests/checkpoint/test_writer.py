"""Saving beside training: nothing waits but for the one before; kills, full disks and old checkpoints."""

import multiprocessing
import os
import random
import subprocess
import threading
import time

import pytest
import torch

from lerobot_ray.checkpoint.commit import complete_checkpoints, verify
from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.checkpoint.load import load_record
from lerobot_ray.checkpoint.retention import Retention, remove_checkpoint
from lerobot_ray.checkpoint.writer import CheckpointWriter
from lerobot_ray.core.errors import CheckpointError
from tests.checkpoint.runs import TOTAL_STEPS, assert_equal, make_run


def writer_of(run, run_dir, **options):
    rules = {
        name: options.pop(name) for name in ("keep_last", "keep_every", "keep_best", "held_back") if name in options
    }
    return CheckpointWriter(
        run_dir, total_steps=TOTAL_STEPS, retention=Retention(**rules), **{"write": run.write(), **options}
    )


def steps(run_dir):
    return [int(path.name) for path in complete_checkpoints(run_dir)]


def test_training_goes_on_while_a_slow_write_runs(tmp_path):
    run, may_go_on, states = make_run(), threading.Event(), {}

    def slow(snapshot, folder):
        run.write()(snapshot, folder)
        assert may_go_on.wait(60)

    writer = writer_of(run, tmp_path, write=slow)
    run.train(1)
    states[1] = run.tensors()
    writer.submit(run.snapshot())
    run.train(2)  # would never return if it waited for the writer
    assert steps(tmp_path) == []
    writer.check()
    may_go_on.set()
    writer.close()
    assert steps(tmp_path) == [1]
    resumed = make_run(seed=1)
    resumed.load(find_checkpoint(tmp_path))
    assert_equal(resumed.tensors(), states[1])


def test_a_second_save_waits_for_the_first(tmp_path):
    run, running, most = make_run(with_ema=False), [], []

    def watched(snapshot, folder):
        running.append(snapshot)
        most.append(len(running))
        time.sleep(0.05)
        run.write()(snapshot, folder)
        running.remove(snapshot)

    writer = writer_of(run, tmp_path, write=watched)
    for _ in range(3):
        run.train(1)
        writer.submit(run.snapshot())
    writer.close()
    assert most == [1, 1, 1]
    assert steps(tmp_path) == [1, 2, 3]


def test_after_commit_sees_the_complete_folder_before_anything_is_removed(tmp_path):
    run, seen = make_run(with_ema=False), []
    writer = writer_of(
        run, tmp_path, keep_last=1, after_commit=lambda path: seen.append((path.name, steps(tmp_path), verify(path)))
    )
    for _ in range(3):
        run.train(1)
        writer.submit(run.snapshot())
    writer.close()
    assert [entry[:2] for entry in seen] == [("000001", [1]), ("000002", [1, 2]), ("000003", [2, 3])]
    assert steps(tmp_path) == [3]


def test_an_error_of_the_caller_comes_out_once(tmp_path):
    run = make_run(with_ema=False)
    run.train(1)

    def upload(path):
        raise RuntimeError("no such repository")

    writer = writer_of(run, tmp_path, after_commit=upload)
    writer.submit(run.snapshot())
    with pytest.raises(RuntimeError, match="no such repository"):
        writer.wait()
    writer.close()
    assert steps(tmp_path) == [1]


def test_the_rules_of_retention_and_scores_over_a_restart(tmp_path):
    run = make_run(with_ema=False)
    scores = {1: 0.5, 2: 0.1, 3: 0.9, 4: 0.3, 5: 0.4, 6: 0.6}
    rules = {"keep_last": 1, "keep_every": 4, "keep_best": 1}
    for part in ((1, 2, 3), (4, 5, 6)):
        writer = writer_of(run, tmp_path, **rules)
        for step in part:
            run.train(1)
            writer.note_score(step, scores[step])
            writer.submit(run.snapshot())
        writer.close()
    assert steps(tmp_path) == [2, 4, 6]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["000002", "000004", "000006", "last", "scores.json"]


@pytest.fixture
def small_disk(tmp_path):
    """Four megabytes, about two checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_the_previous_checkpoint_is_intact(small_disk):
    run = make_run(with_ema=False)
    writer = writer_of(run, small_disk)
    failure = None
    while failure is None:
        run.train(1)
        snapshot = run.snapshot()
        writer.submit(snapshot)
        try:
            writer.wait()
        except CheckpointError as error:
            failure = str(error)
    written = run.step - 1
    assert written >= 1, "not even one fits"
    assert f"{run.step:06d} cannot be written" in failure
    assert "No space left" in failure
    assert f"needs about {snapshot.num_bytes / 1e6:.1f} MB" in failure
    assert f"{written:06d}, is intact" in failure
    assert not list((small_disk / "checkpoints").glob(".*"))
    for checkpoint in complete_checkpoints(small_disk):
        verify(checkpoint)
    resumed = make_run(seed=1, with_ema=False)
    resumed.load(find_checkpoint(small_disk))
    assert resumed.step == written
    # room again: the same writer goes on
    remove_checkpoint(complete_checkpoints(small_disk)[0])
    writer.submit(run.snapshot())
    writer.close()
    assert find_checkpoint(small_disk).name == f"{run.step:06d}"


def _save_forever(run_dir, submitted, num_threads):
    torch.set_num_threads(num_threads)  # sums over a batch come out alike only if it is divided alike
    run = make_run(with_ema=False)
    if steps(run_dir):
        run.load(find_checkpoint(run_dir))
    writer = writer_of(run, run_dir, keep_last=3)
    while True:
        run.train(1)
        writer.submit(run.snapshot())
        submitted.release()


def test_killed_inside_a_save_the_run_goes_on_from_a_whole_checkpoint(tmp_path):
    """kill -9, again and again, each time resumed from what is there; the end is that of the unbroken run."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.checkpoint.runs"])
    moments, newest, cut_short = random.Random(0), 0, 0
    for _ in range(8):
        submitted = processes.Semaphore(0)
        saver = processes.Process(
            target=_save_forever, args=(tmp_path, submitted, torch.get_num_threads()), daemon=True
        )
        saver.start()
        for _ in range(moments.choice([2, 2, 3])):  # the one before the last is complete then
            assert submitted.acquire(timeout=120)
        time.sleep(moments.uniform(0.0, 0.03))
        saver.kill()
        saver.join()
        cut_short += bool(list((tmp_path / "checkpoints").glob(".writing-*")))
        for checkpoint in complete_checkpoints(tmp_path):
            verify(checkpoint)
            assert load_record(checkpoint).step == int(checkpoint.name)
        assert max(steps(tmp_path)) > newest
        newest = max(steps(tmp_path))
    assert cut_short, "no kill fell inside a save"
    resumed, unbroken = make_run(seed=1, with_ema=False), make_run(with_ema=False)
    resumed.load(find_checkpoint(tmp_path))
    unbroken.train(newest)
    assert_equal(resumed.tensors(), unbroken.tensors())
