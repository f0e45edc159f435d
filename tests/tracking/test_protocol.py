"""What every tracker takes: the same story told to each, twice, as a run and its resumption do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lerobot_ray.config.tracking import WandBConfig
from lerobot_ray.tracking.guarded import GuardedTrackers
from lerobot_ray.tracking.jsonl import JsonlTracker
from lerobot_ray.tracking.mlflow import MlflowTracker
from lerobot_ray.tracking.protocol import Outcome, Tracker
from lerobot_ray.tracking.wandb import WandbTracker
from tests.tracking.trackers import Failing, Recorder, run_info

HAS_WANDB = importlib.util.find_spec("wandb") is not None
KINDS = ["recorder", "jsonl", "mlflow", pytest.param("wandb", marks=pytest.mark.skipif(not HAS_WANDB, reason="extra"))]


def build(kind: str, store: str) -> Tracker:
    if kind == "mlflow":
        return MlflowTracker(store, experiment="robots")
    if kind == "wandb":
        return WandbTracker(WandBConfig(enable=True, mode="offline"))
    return JsonlTracker() if kind == "jsonl" else Recorder()


def tell(tracker: Tracker, folder: Path, first_step: int, outcome: Outcome) -> None:
    checkpoint = folder / "checkpoints" / f"{first_step + 20:06d}"
    (checkpoint / "pretrained_model").mkdir(parents=True)
    (checkpoint / "pretrained_model" / "model.safetensors").write_bytes(b"weights")
    (folder / "note.txt").write_text("a note")
    tracker.start(run_info(folder, first_step=first_step))
    tracker.log({"train/loss": 0.5, "train/grad_norm": float("inf")}, step=first_step + 10, time_s=1e9)
    tracker.log({"eval/loss": float("nan")}, step=first_step + 10)
    tracker.log({}, step=first_step + 15)
    tracker.log_checkpoint(checkpoint, step=first_step + 20)
    tracker.log({"eval/pc_success": 40.0}, step=first_step + 5)  # rollouts end when training is further on
    tracker.log_file(folder / "note.txt", folder="notes")
    tracker.close(outcome)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_and_its_resumption(kind, tmp_path, store):
    tell(build(kind, store), tmp_path, 0, Outcome("stopped"))
    tell(build(kind, store), tmp_path, 20, Outcome("failed", "OSError: disk"))


@pytest.mark.parametrize("kind", KINDS)
def test_guarded_beside_one_that_fails_at_everything(kind, tmp_path, store, caplog):
    broken = Failing("start", "log", "checkpoint", "file", "close")
    tell(GuardedTrackers({"it": build(kind, store), "broken": broken}, close_timeout_s=120), tmp_path, 0, Outcome())
    assert "broken: start failed" in caplog.text
    assert "it: " not in caplog.text
