"""Whole runs that push to the loopback Hub, and go on from it where the disk is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from safetensors.numpy import load

from lerobot_ray.data.audit_check import load_audit
from lerobot_ray.hub.dataset import push_dataset
from tests.hub_server import HubServer
from tests.on_ray.runs import (
    assert_same_run,
    checkpoint,
    command,
    kill_training_workers,
    losses,
    run_here,
    start_apart,
    wait_until,
    weights,
)

pytestmark = [pytest.mark.ray, pytest.mark.hub]
STEPS = 12
PUSHING = ["--policy.repo_id=alice/act", "--policy.private=true", "--save_checkpoint_to_hub=true"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub, and an environment that leads to it, here and in processes started from here."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer(tmp_path / "hub") as server:
        server.api = HfApi(endpoint=server.endpoint, token=server.add_user("alice"))
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.api.token)
        yield server


def tags(hub) -> list[str]:
    repo = hub.store.repos.get(("model", "alice/act"))
    return sorted(repo.tags) if repo else []


def files(hub, revision: str, repo_id: str = "alice/act") -> dict[str, bytes]:
    commit = hub.store.repos["model", repo_id].resolve(revision)
    return {path: hub.store.blob_path(entry.sha256).read_bytes() for path, entry in commit.files.items()}


def files_with(secret: str, *folders: Path) -> list[Path]:
    """Every file below these that holds the secret."""
    return [path for folder in folders for path in [folder, *folder.rglob("*")] if secret.encode() in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:  # Ray's processes end beside the test, and take files along
        return b""


def test_checkpoints_and_the_policy_are_pushed_and_old_ones_removed(ray_cluster, hub, toy_root, tmp_path, capsys):
    """On a private dataset of the Hub: neither it nor the repository is anybody's without the driver's token."""
    run = tmp_path / "run"
    push_dataset(toy_root, "alice/toy")
    flags = ["--dataset.repo_id=alice/toy", "--dataset.root=null", "--steps=4", "--save_freq=2", "--keep_last=1"]
    assert run_here(command(toy_root, run, *PUSHING, *flags, "--ema.enable=true")) == 0
    assert [path.name for path in (run / "audit").iterdir()] == ["attempt-0001"], "no restart hides an error"
    assert tags(hub) == ["000002", "000004"]
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit()] == ["000004"]
    assert hub.store.repos["model", "alice/act"].private
    said = capsys.readouterr().err
    assert f"Model pushed to {hub.endpoint}/alice/act" in said
    assert f"each checkpoint and the finished policy to {hub.endpoint}/alice/act" in said
    there = files(hub, "main")
    model = checkpoint(run, 4) / "pretrained_model"
    assert all(there[path.name] == path.read_bytes() for path in model.iterdir())
    assert there["loss.png"].startswith(b"\x89PNG")
    assert b"| steps | 4 |" in there["README.md"]
    average, trained = files(hub, "main", "alice/act-ema"), checkpoint(run, 4)
    assert hub.store.repos["model", "alice/act-ema"].private
    assert average["model.safetensors"] == (trained / "pretrained_model_ema/model.safetensors").read_bytes()
    assert average["model.safetensors"] != there["model.safetensors"]
    assert b"Its weights are the moving average" in average["README.md"]
    older = files(hub, "000002")
    assert "checkpoints/000002/training_state/optimizer_state.safetensors" in older
    assert json.loads(older["checkpoints/000002/training_state/training_step.json"])["step"] == 2


@pytest.mark.slow
def test_a_run_goes_on_from_the_hub_on_an_empty_disk(ray_cluster, hub, toy_root, tmp_path, monkeypatch):
    """Killed in the middle of an upload, its disk lost, resumed from the Hub: as if nothing had happened.

    And its token is in none of the files that either run, Ray and the Hub have kept.
    """
    unbroken = tmp_path / "unbroken"
    assert run_here(command(toy_root, unbroken, f"--steps={STEPS}")) == 0
    ray_files = Path(tempfile.mkdtemp(prefix="lrr", dir="/tmp"))  # short: there are sockets in it
    monkeypatch.setenv("RAY_TMPDIR", str(ray_files))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    secret = hub.api.token
    try:
        lost, log = tmp_path / "lost", tmp_path / "lost.log"
        hub.fault("/commit/main", method="POST", first=3, times=1, delay_s=600)
        arguments = command(toy_root, lost, *PUSHING, f"--steps={STEPS}", "--save_freq=4", "--mlflow.enable=true")
        driver = start_apart(arguments, log)
        try:
            wait_until(lambda: len(hub.requests("/commit/main", "POST")) == 3, within_s=240)
        finally:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
        assert tags(hub) == ["000004", "000008"], log.read_text()
        assert checkpoint(lost, 12).is_dir()
        assert files_with(secret, lost, log, ray_files, tmp_path / "hub") == []
        shutil.rmtree(lost)
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        hub.book.rules.clear()

        found, log = tmp_path / "found", tmp_path / "found.log"
        arguments = ["--resume=true", "--config_path=alice/act", f"--output_dir={found}"]
        driver = start_apart(arguments, log)
        assert driver.wait(timeout=240) == 0, log.read_text()
        assert f"Model pushed to {hub.endpoint}/alice/act" in log.read_text()
        assert tags(hub) == ["000004", "000008", "000012"]
        assert_same_run(found, unbroken, step=STEPS)
        assert load_audit(found).first_step == 0
        assert list(losses(found)) == list(range(9, 13))
        assert len(list(ray_files.rglob("*.log"))) > 3, "Ray has kept its logs here"
        assert files_with(secret, found, log, ray_files, tmp_path / "hub", tmp_path / "home") == []
    finally:
        shutil.rmtree(ray_files, ignore_errors=True)


@pytest.mark.slow
def test_a_killed_worker_is_followed_by_one_that_sends_nothing_again(ray_cluster, hub, toy_root, tmp_path):
    hub.fault("/commit/main", method="POST", first=2, times=1, delay_s=3)

    def kill_in_the_second_upload():
        wait_until(lambda: len(hub.requests("/commit/main", "POST")) == 2, within_s=240)
        kill_training_workers()

    killer = threading.Thread(target=kill_in_the_second_upload)
    killer.start()
    flags = [*PUSHING, "--policy.push_to_hub=false", "--steps=12", "--save_freq=4"]
    assert run_here(command(toy_root, tmp_path / "run", *flags)) == 0
    killer.join()
    assert tags(hub) == ["000004", "000008", "000012"]
    puts = hub.requests("/lfs/object/", "PUT")
    assert len(puts) == len({request.path for request in puts})
    for step in (4, 8, 12):
        there = files(hub, f"{step:06d}")[f"checkpoints/{step:06d}/pretrained_model/model.safetensors"]
        assert there == (checkpoint(tmp_path / "run", step) / "pretrained_model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_same_command_line_again_on_an_empty_disk(ray_cluster, hub, toy_root, tmp_path):
    arguments = command(toy_root, tmp_path / "run", *PUSHING, "--resume=auto", "--save_freq=4")
    assert run_here([*arguments, "--steps=4"]) == 0
    shutil.rmtree(tmp_path / "run")
    assert run_here([*arguments, "--steps=8"]) == 0
    assert tags(hub) == ["000004", "000008"]
    assert np.array_equal(load_audit(tmp_path / "run").rows["step"].to_numpy()[[0, -1]], [0, 7])
    # a policy of one of its steps starts another run
    tuned = ["--policy.path=alice/act", "--policy.pretrained_revision=4", "--policy.device=cpu", "--steps=1"]
    usual = [flag for flag in command(toy_root, tmp_path / "tuned", "--save_freq=1") if not flag.startswith("--policy")]
    assert run_here([*usual, *tuned, "--policy.optimizer_lr=1e-30", "--policy.optimizer_lr_backbone=1e-30"]) == 0
    begun = load(files(hub, "000004")["checkpoints/000004/pretrained_model/model.safetensors"])
    after = weights(tmp_path / "tuned", 1)
    assert begun.keys() == after.keys()
    assert [name for name in begun if not np.array_equal(begun[name], after[name])] == []


@pytest.mark.slow
def test_shares_of_two_ranks_come_back_from_the_hub(ray_cluster, hub, toy_root, tmp_path):
    """A sharded run goes on from the Hub on an empty disk as if nothing had happened."""
    sharded = ["--ray.num_workers=2", "--parallelism.dp_shard=2", "--checkpoint_format=safetensors_dcp"]
    unbroken, lost, found = (tmp_path / name for name in ("unbroken", "lost", "found"))
    assert run_here(command(toy_root, unbroken, *sharded, "--steps=8")) == 0
    assert run_here(command(toy_root, lost, *sharded, *PUSHING, "--steps=4", "--save_freq=4")) == 0
    shares = "checkpoints/000004/sharded/"
    assert len([path for path in files(hub, "000004") if path.startswith(shares)]) >= 2
    shutil.rmtree(lost)
    resumed = ["--resume=true", "--config_path=alice/act", f"--output_dir={found}", "--steps=8"]
    assert run_here(resumed) == 0
    fetched = [each.path for each in hub.requests("/resolve/.*safetensors", "GET") if each.status == 200]
    assert len(fetched) == len(set(fetched)) >= 4, "two ranks of one node fetch every file once"
    assert tags(hub) == ["000004", "000008"]
    assert_same_run(found, unbroken, step=8)
