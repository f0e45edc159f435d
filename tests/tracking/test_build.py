from __future__ import annotations

import pickle

import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.episodes import Selection
from lerobot_ray.tracking.build import plan_tracking, start_trackers, where_to_look
from lerobot_ray.tracking.facts import selection_facts
from lerobot_ray.tracking.metric_log import load_metrics

REQUIRED = ["--dataset.repo_id=user/data", "--policy.type=act"]


def config_of(folder, *flags):
    return parse_train_config([*REQUIRED, f"--output_dir={folder}", *flags])


def test_a_plan_travels_and_becomes_trackers(tmp_path):
    plan = plan_tracking(config_of(tmp_path, "--mlflow.enable=false", "--steps=50"), command=["train", "--x=1"])
    with start_trackers(
        pickle.loads(pickle.dumps(plan)), first_step=10, world_size=2, facts={"num_samples": 9}
    ) as all_:
        all_.log({"train/loss": 1.0}, step=11)
    log = load_metrics(tmp_path)
    (attempt,) = log.attempts
    assert (attempt.first_step, attempt.status) == (10, "finished")
    assert attempt.info["facts"] == {"num_samples": 9}
    assert attempt.info["total_steps"] == 50
    assert attempt.info["config"]["policy"]["type"] == "act"
    assert attempt.info["environment"]["command"] == "train --x=1"
    assert attempt.info["environment"]["versions"]["torch"]
    assert not (tmp_path / "mlflow.db").exists()


def test_no_secret_is_in_what_is_recorded_or_shown(tmp_path):
    environment = {"MLFLOW_TRACKING_URI": "http://me:hunter2@tracking"}
    plan = plan_tracking(config_of(tmp_path), command=["train", "--token=hunter2"], environment=environment)
    assert plan.mlflow_uri == "http://me:hunter2@tracking"
    assert "hunter2" not in repr(plan)
    assert "hunter2" not in " ".join(where_to_look(plan))
    plan = plan_tracking(config_of(tmp_path, "--mlflow.tracking_uri=http://me:hunter2@tracking"), command=[])
    assert "hunter2" not in repr(plan)


def test_the_command_is_told_as_it_was_typed(tmp_path):
    def command(*words):
        return plan_tracking(config_of(tmp_path), command=words).launched["command"]

    assert command("/somewhere/lerobot_ray/train.py", "--a=b c") == "python -m lerobot_ray.train '--a=b c'"
    assert command("/usr/bin/lerobot-ray-train", "--steps=1") == "lerobot-ray-train --steps=1"
    assert command() == ""


def test_where_to_look_names_the_command_for_a_file(tmp_path):
    lines = where_to_look(plan_tracking(config_of(tmp_path), environment={}))
    assert f"MLflow: mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in lines


def test_a_missing_library_is_an_error_on_the_driver(tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot_ray.tracking.wandb.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb"):
        plan_tracking(config_of(tmp_path, "--wandb.enable=true"))


def test_facts_of_a_selection(tmp_path):
    import numpy as np

    selection = Selection(
        episodes=np.array([0, 3]),
        starts=np.array([0, 5, 12]),
        first_row=np.array([0, 30]),
        last_row=np.array([4, 36]),
    )
    assert selection_facts(selection) == {
        "num_samples": 12,
        "num_episodes": 2,
        "episodes": [0, 3],
        "episode_samples": [5, 7],
    }
