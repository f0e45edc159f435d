"""Which checkpoints are owed an evaluation, and which must stay for it: a run's folder says so."""

from __future__ import annotations

import dataclasses
import shutil

from lerobot_ray.checkpoint.commit import complete_checkpoints, new_checkpoint
from lerobot_ray.checkpoint.retention import Retention, note_score
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.envs.eval_info import save_info
from lerobot_ray.on_ray.evaluated import (
    evaluated_folder,
    failed_path,
    held_back,
    info_path,
    is_due,
    mark_of,
    owed,
)
from tests.on_ray.runs import TINY_ACT

CONFIG = parse_train_config(
    ["--dataset.repo_id=a/b", "--env.type=reach", "--env_eval_freq=10", "--steps=25", "--output_dir=run", *TINY_ACT]
)


def save(run_dir, *steps, text="weights"):
    for step in steps:
        with new_checkpoint(run_dir, step, total_steps=25) as folder:
            (folder / "file").write_text(f"{text} {step}")


def settle(checkpoint, path_of=info_path):
    save_info({"evaluation": {"checkpoint": mark_of(checkpoint)}}, path_of(checkpoint))


def names(checkpoints):
    return [int(path.name) for path in checkpoints]


def test_due_are_the_named_steps_and_the_last():
    assert [step for step in range(26) if is_due(CONFIG, step) and step] == [10, 20, 25]
    assert not is_due(dataclasses.replace(CONFIG, env_eval_freq=0), 10)
    assert not is_due(dataclasses.replace(CONFIG, env=None), 10)


def test_owed_are_complete_due_checkpoints_without_a_result_of_their_own(tmp_path):
    save(tmp_path, 5, 10, 20)
    assert names(owed(CONFIG, tmp_path)) == [10, 20]
    ten = complete_checkpoints(tmp_path)[1]
    settle(ten)
    assert names(owed(CONFIG, tmp_path)) == [20]
    save(tmp_path, 10, text="trained again")
    assert names(owed(CONFIG, tmp_path)) == [10, 20], "the result is of another checkpoint of step 10"
    settle(ten, failed_path)
    assert names(owed(CONFIG, tmp_path)) == [10, 20], "a failed one is tried again when the run is started again"
    info_path(ten).write_text("{torn")
    assert names(owed(CONFIG, tmp_path)) == [10, 20]


def test_retention_waits_for_evaluations(tmp_path):
    save(tmp_path, 10, 15, 20, 25)
    ten, fifteen, twenty, last = complete_checkpoints(tmp_path)
    rules = Retention(keep_last=1, keep_best=1, lower_is_better=False, held_back=lambda paths: held_back(CONFIG, paths))
    rules.apply(tmp_path)
    assert complete_checkpoints(tmp_path) == [ten, twenty, last], "15 is not due, the others are not evaluated yet"
    note_score(tmp_path, 10, 80.0)
    settle(ten)
    settle(twenty, failed_path)
    rules.apply(tmp_path)
    assert complete_checkpoints(tmp_path) == [ten, last], "20 could not be evaluated, and 10 is the best"
    note_score(tmp_path, 25, 90.0)
    settle(last)
    rules.apply(tmp_path)
    assert complete_checkpoints(tmp_path) == [last]
    assert not fifteen.exists()


def test_averaged_weights_are_played_when_asked(tmp_path):
    for name in ("pretrained_model", "pretrained_model_ema"):
        (tmp_path / name).mkdir()
    ema = dataclasses.replace(CONFIG, ema=EmaConfig(enable=True))
    trained = dataclasses.replace(CONFIG, ema=EmaConfig(enable=True, use_for_eval=False))
    assert evaluated_folder(tmp_path, ema).name == "pretrained_model_ema"
    assert evaluated_folder(tmp_path, trained).name == "pretrained_model"
    shutil.rmtree(tmp_path / "pretrained_model_ema")
    assert evaluated_folder(tmp_path, ema).name == "pretrained_model"
