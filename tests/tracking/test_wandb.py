from __future__ import annotations

import importlib.util
import time

import pytest

from lerobot_ray.config.tracking import WandBConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.tracking.protocol import Outcome
from lerobot_ray.tracking.wandb import WandbTracker
from tests.tracking.trackers import run_info

needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra wandb")
END = b"last words"
OFFLINE = {"enable": True, "mode": "offline"}


def recorded(folder, *, runs):
    """The contents of offline runs. W&B's own process writes them shortly after `finish` returns."""
    deadline = time.monotonic() + 30
    contents = []
    while len(contents) < runs or not all(END in content for content in contents):
        assert time.monotonic() < deadline, contents
        time.sleep(0.05)
        contents = [path.read_bytes() for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))]
    return contents


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("lerobot_ray.tracking.wandb.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'lerobot-ray\[wandb\]'"):
        WandbTracker(WandBConfig(**OFFLINE))


@needs_wandb
def test_two_jobs_of_one_output_folder_are_one_offline_run(tmp_path):
    for first in (0, 10):
        tracker = WandbTracker(WandBConfig(**OFFLINE, notes="notes of the run"), tags=["policy:act"])
        tracker.start(run_info(tmp_path, first_step=first))
        tracker.log({"train/loss": 0.123456 + first}, step=first + 5)
        tracker.close(Outcome("finished", END.decode()))
        second = int(time.time())
        while int(time.time()) == second:  # W&B names an offline run's file by the second and overwrites
            time.sleep(0.02)
    first_file, second_file = recorded(tmp_path, runs=2)
    run_id = (tmp_path / "wandb_run.txt").read_text().encode()
    for content in (first_file, second_file):
        assert run_id in content
        assert b"train/loss" in content
        assert b"policy:act" in content
        assert b"notes of the run" in content
        assert b"chunk_size" in content
    assert b"0.123456" in first_file
    assert b"10.123456" in second_file


@needs_wandb
@pytest.mark.parametrize("disabled", [False, True])
def test_a_checkpoints_policy_is_an_artifact_unless_switched_off(tmp_path, disabled):
    policy = tmp_path / "checkpoints/000010/pretrained_model"
    policy.mkdir(parents=True)
    (policy / "model.safetensors").write_bytes(b"weights")
    tracker = WandbTracker(WandBConfig(**OFFLINE, disable_artifact=disabled, add_tags=False), tags=["policy:act"])
    tracker.start(run_info(tmp_path, name="act on reach"))
    tracker.log_checkpoint(policy.parent, step=10)
    tracker.close(Outcome("finished", END.decode()))
    (content,) = recorded(tmp_path, runs=1)
    assert (b"act_on_reach-000010" in content) is not disabled
    assert (b"model.safetensors" in content) is not disabled
    assert b"policy:act" not in content


@needs_wandb
def test_a_run_that_lerobot_began_is_continued(tmp_path):
    theirs = tmp_path / "wandb" / "latest-run"
    theirs.mkdir(parents=True)
    (theirs / "run-abc12345.wandb").touch()
    tracker = WandbTracker(WandBConfig(enable=True, mode="disabled"))
    tracker.start(run_info(tmp_path))
    tracker.close(Outcome())
    tracker = WandbTracker(WandBConfig(**OFFLINE, run_id="mine1234"))
    tracker.start(run_info(tmp_path))
    tracker.close(Outcome())
    assert (tmp_path / "wandb_run.txt").read_text() == "mine1234"
