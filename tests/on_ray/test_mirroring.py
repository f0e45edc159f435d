"""Runs that are copied to an S3, and go on from it where the disk is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest

from lerobot_ray.checkpoint.store import RunStore
from lerobot_ray.checkpoint.stored import stored_steps, upload_checkpoint
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.on_ray.mirroring import check_store, newest_of_run
from lerobot_ray.tracking.metric_log import load_metrics
from tests.checkpoint.stores import save, store_in
from tests.on_ray.runs import (
    assert_same_run,
    command,
    refusals,
    run_here,
    samples,
    start_apart,
    starts,
    training_workers,
    wait_until,
)
from tests.s3_server import S3Server

RUNS = "s3://bucket/runs"
SECRET = "a-key-that-is-in-no-file"


@pytest.fixture
def s3(monkeypatch, tmp_path):
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    with S3Server() as server:
        server.put("bucket", {"elsewhere": b""})
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield server


def steps(name: str = "run") -> list[int]:
    return list(stored_steps(RunStore(f"{RUNS}/{name}")))


def finished(arguments, log) -> str:
    code = start_apart(arguments, log).wait(timeout=240)
    assert code == 0, log.read_text()
    return log.read_text()


@pytest.mark.ray
def test_what_cannot_work_is_refused_before_ray_starts(s3, toy_root, tmp_path):
    store = RunStore(f"{RUNS}/taken")
    store.put(json.dumps({"files": {}}).encode(), "checkpoints/000006/manifest.json")
    s3.fault("/runs/forbidden", method="PUT", status=403, code="AccessDenied")
    stored = f"--ray.storage_path={RUNS}"
    said = refusals(
        {
            "no right": command(toy_root, tmp_path / "forbidden", stored),
            "no bucket": command(toy_root, tmp_path / "run", "--ray.storage_path=s3://nosuchbucket/runs"),
            "keys": command(toy_root, tmp_path / "run", "--ray.storage_path=s3://key:secret@bucket/runs"),
            "taken": command(toy_root, tmp_path / "taken", stored),
        }
    )
    parts = {
        "no right": "no access to .probe",
        "no bucket": "s3://nosuchbucket/runs/run: no access to .probe",
        "keys": "carries credentials",
        "taken": f"{RUNS}/taken holds checkpoints already (the last of step 6)",
    }
    for name, part in parts.items():
        assert part in said[name][0], said[name]
        assert not said[name][1], "no Ray"
    assert not any((tmp_path / name).exists() for name in ("forbidden", "run", "taken"))
    assert "secret@" not in said["keys"][0]


def test_a_start_begins_with_the_newest_checkpoint_there_is(s3, tmp_path, caplog):
    store = store_in(s3, tmp_path)
    run, fresh, begun = tmp_path / "run", tmp_path / "fresh", save(tmp_path / "other", 2)
    assert newest_of_run(fresh, store=store, resume_from=None) is None
    assert newest_of_run(fresh, store=store, resume_from=begun) == begun
    upload_checkpoint(store, save(run, 4))
    assert newest_of_run(fresh, store=store, resume_from=begun) == fresh / "checkpoints" / "000004"
    assert newest_of_run(run, store=store, resume_from=begun) == run / "checkpoints" / "000004"
    later = save(tmp_path / "other", 6)
    assert newest_of_run(tmp_path / "none", store=store, resume_from=later) == later, "what is older is not brought"
    s3.fault(status=403, code="AccessDenied")
    assert newest_of_run(run, store=store, resume_from=None) == run / "checkpoints" / "000004"
    assert "Going on with" in caplog.text
    with pytest.raises(StorageError, match="no access"):
        newest_of_run(tmp_path / "none", store=store, resume_from=later)


def test_steps_of_another_run_or_to_be_trained_again_are_refused(s3, toy_root, tmp_path):
    store = store_in(s3, tmp_path)
    run, output_dir = tmp_path / "run", tmp_path / "out"
    config = parse_train_config(command(toy_root, output_dir, f"--ray.storage_path={RUNS}", "--resume=auto"))
    checkpoints = {step: save(run, step) for step in (2, 4)}
    check_store(store, config, checkpoints[2])
    for checkpoint in checkpoints.values():
        upload_checkpoint(store, checkpoint)
    check_store(store, config, checkpoints[4])
    with pytest.raises(ConfigError, match=r"the last of step 4, this run continues from 2"):
        check_store(store, config, checkpoints[2])
    with pytest.raises(ConfigError, match="they are of different runs"):
        check_store(store, config, save(tmp_path / "other", 4, "others"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_on_a_fresh_machine_brings_back_what_the_store_has(s3, toy_root, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    fault = s3.fault("run/checkpoints/000008/.*safetensors", method="PUT", times=1, delay_s=5)
    flags = [f"--ray.storage_path={RUNS}", "--steps=12", "--save_freq=4"]
    driver = start_apart(command(toy_root, run, *flags), log)
    wait_until(lambda: fault.seen or driver.poll() is not None, within_s=240)
    for process in training_workers(driver.pid):
        os.kill(process, signal.SIGKILL)
    for folder in ("checkpoints", "audit"):
        shutil.rmtree(run / folder)
    assert driver.wait(timeout=240) == 0, log.read_text()
    assert steps() == [4, 8, 12]
    assert starts(run) == [0, 4]
    assert np.array_equal(samples(run)[0], np.arange(48))


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_from_its_store_on_an_empty_disk(ray_cluster, s3, toy_root, tmp_path):
    """Twice: killed in the middle of an upload and resumed by its URL, then again by the same command line."""
    unbroken = tmp_path / "unbroken"
    assert run_here(command(toy_root, unbroken, "--steps=12")) == 0

    def arguments(disk, *flags):
        return command(toy_root, tmp_path / disk / "run", "--save_freq=4", f"--ray.storage_path={RUNS}", *flags)

    fault = s3.fault("run/checkpoints/000008/.*safetensors", method="PUT", delay_s=600)
    driver = start_apart(arguments("first", "--steps=12"), tmp_path / "log")
    try:
        wait_until(lambda: fault.seen, within_s=200)
    finally:
        driver.kill()
        driver.wait()
    s3.faults.clear()
    assert steps() == [4], "the half one does not show"
    shutil.rmtree(tmp_path / "first")

    resumed = ["--resume=true", f"--config_path={RUNS}/run", f"--output_dir={tmp_path / 'second' / 'run'}"]
    said = finished([*resumed, "--steps=10"], tmp_path / "log2")
    assert f"copied to  {RUNS}/run" in said
    assert steps() == [4, 8, 10]
    curve = load_metrics(tmp_path / "second" / "run").series["train/loss"]
    assert list(curve.step) == list(range(1, 11)), "its numbers came along, those of the lost steps taken back"

    shutil.rmtree(tmp_path / "second")
    said = finished(arguments("third", "--steps=12", "--resume=auto"), tmp_path / "log3")
    assert f"step 10 was brought here from {RUNS}/run" in said
    assert steps() == [4, 8, 10, 12]
    third = tmp_path / "third" / "run"
    assert_same_run(third, unbroken, step=12)
    assert np.array_equal(samples(third)[0], np.arange(48)), "every sample once, over three disks"
    assert {"metrics.jsonl", "report.html"} <= RunStore(f"{RUNS}/run").files().keys()
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in everything if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_store_that_fails_stops_nothing_and_gets_the_rest_later(s3, toy_root, tmp_path):
    run = tmp_path / "run"
    s3.fault("run/checkpoints/000002/", method="PUT", status=403, code="AccessDenied")
    flags = [f"--ray.storage_path={RUNS}", "--steps=4", "--save_freq=2"]
    said = finished(command(toy_root, run, *flags), tmp_path / "log")
    assert f"the checkpoint of step 2 is not in {RUNS}/run: " in said
    assert f"not in {RUNS}/run: the checkpoints 000002" in said
    assert steps() == [4]
    s3.faults.clear()
    finished([*command(toy_root, run, *flags), "--resume=auto"], tmp_path / "log2")
    assert steps() == [2, 4]
    policy = [f"--policy.path={RUNS}/run/checkpoints/000002", "--policy.device=cpu", "--steps=1"]
    usual = [flag for flag in command(toy_root, tmp_path / "tuned") if not flag.startswith("--policy")]
    said = finished([*usual, *policy], tmp_path / "log3")
    assert "fetching" in said, "a policy of one of its steps starts another run"
