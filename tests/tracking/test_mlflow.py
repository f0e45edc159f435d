"""Against real sqlite stores. MLflow is imported in this process once: seconds."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path

from lerobot_ray.tracking.guarded import GuardedTrackers
from lerobot_ray.tracking.mlflow import MlflowTracker, flat, resolve_tracking_uri
from lerobot_ray.tracking.protocol import Outcome
from tests.tracking.trackers import run_info


def client_of(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def tracker_of(uri, **options):
    return MlflowTracker(uri, **{"experiment": "robots", "system_metrics": False, **options})


def history(uri, run_id, name):
    return [(metric.step, metric.value) for metric in client_of(uri).get_metric_history(run_id, name)]


def test_two_jobs_of_one_output_folder_are_one_run(tmp_path, store):
    first = tracker_of(store, tags={"policy": "act"})
    first.start(run_info(tmp_path))
    first.log({"train/loss": 0.5, "train/lr": 1e-5}, step=10, time_s=1000.0)
    first.log_checkpoint(tmp_path / "checkpoints/000010", step=10)
    assert client_of(store).get_run(first.run_id).info.status == "RUNNING"
    first.close(Outcome("stopped"))
    assert client_of(store).get_run(first.run_id).info.status == "KILLED"

    second = tracker_of(store)
    changed = run_info(tmp_path, first_step=10, world_size=4, config={"policy": {"type": "act"}, "seed": 7})
    second.start(changed)
    assert second.run_id == first.run_id
    assert client_of(store).get_run(first.run_id).info.status == "RUNNING"
    second.log({"train/loss": 0.25}, step=20)
    second.log_checkpoint(tmp_path / "checkpoints/000020", step=20)
    second.close(Outcome())

    run = client_of(store).get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert history(store, run.info.run_id, "train/loss") == [(10, 0.5), (20, 0.25)]
    assert run.data.params["policy.chunk_size"] == "8"
    assert run.data.params["seed"] == "1000"
    assert run.data.tags["attempt_2.seed"] == "7", "a parameter cannot change, what the second job used is told"
    assert run.data.tags["attempt_2.world_size"] == "4"
    assert run.data.tags["policy"] == "act"
    assert run.data.tags["lerobot_ray.last_checkpoint_step"] == "20"
    noted = json.loads(Path(client_of(store).download_artifacts(run.info.run_id, "checkpoints.json")).read_text())
    assert [entry["step"] for entry in noted["checkpoints"]] == [10, 20]
    assert len(client_of(store).search_runs([run.info.experiment_id])) == 1


def test_config_environment_and_packages_are_artifacts_beside_the_database(tmp_path, store):
    tracker = tracker_of(store)
    tracker.start(run_info(tmp_path))
    tracker.close(Outcome())
    files = {path.name: path for path in (tmp_path / "mlartifacts").rglob("*.*") if path.is_file()}
    assert json.loads(files["config.json"].read_text())["policy"]["type"] == "act"
    assert json.loads(files["environment.json"].read_text()) == {"python": "3.11", "num_samples": 72}
    assert files["requirements.txt"].read_text() == "torch==2.11.0\nav==14\n"


def test_values_that_are_not_finite_and_odd_names_are_taken(tmp_path, store):
    tracker = tracker_of(store)
    tracker.start(run_info(tmp_path))
    tracker.log({"train/loss": float("nan"), "train/grad_norm": float("inf"), "eval/a(b)": 1.0}, step=1)
    tracker.log({f"train/x{number}": 1.0 for number in range(1500)}, step=2)
    tracker.close(Outcome())
    data = client_of(store).get_run(tracker.run_id).data
    assert data.metrics["eval/a_b_"] == 1.0
    assert data.metrics["train/x1499"] == 1.0
    assert history(store, tracker.run_id, "train/grad_norm")[0][1] > 1e300


def test_long_and_nested_config_fits_mlflows_limits(tmp_path, store):
    config = {"long": "x" * 20_000, "many": {f"key{number}": number for number in range(350)}, "k" * 400: 1}
    tracker = tracker_of(store)
    tracker.start(run_info(tmp_path, config=config))
    tracker.close(Outcome())
    params = client_of(store).get_run(tracker.run_id).data.params
    assert len(params["long"]) == 6000
    assert params["long"].endswith("…")
    assert params["many.key349"] == "349"
    assert params["k" * 250] == "1"
    assert flat({"a": {"b": None, "c": [1, 2], "d": {}}}) == {"a.b": "null", "a.c": "[1, 2]", "a.d": "{}"}


def test_a_trial_is_a_child_of_its_sweep(tmp_path, store):
    client = client_of(store)
    parent = client.create_run(client.create_experiment("robots", (tmp_path / "mlartifacts").as_uri()))
    tracker = tracker_of(store, parent_run=parent.info.run_id)
    tracker.start(run_info(tmp_path / "trial"))
    tracker.close(Outcome())
    assert client.get_run(tracker.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_run_that_is_gone_from_the_store_begins_anew(tmp_path, store, empty_store, caplog):
    first = tracker_of(store)
    first.start(run_info(tmp_path))
    first.close(Outcome())
    elsewhere = tmp_path / "elsewhere.db"
    elsewhere.write_bytes(empty_store)
    second = tracker_of(f"sqlite:///{elsewhere}")
    second.start(run_info(tmp_path))
    second.close(Outcome())
    assert second.run_id != first.run_id
    assert "not in the store any more" in caplog.text


def test_a_failed_run_says_why(tmp_path, store):
    tracker = tracker_of(store)
    tracker.start(run_info(tmp_path))
    tracker.close(Outcome("failed", "NonFiniteError: step 12"))
    run = client_of(store).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["lerobot_ray.message"]) == ("FAILED", "NonFiniteError: step 12")


def test_a_store_that_fails_for_a_while_is_warned_about_and_recording_goes_on_afterwards(tmp_path, store, caplog):
    tracker = tracker_of(store)
    with GuardedTrackers({"mlflow": tracker}) as trackers:
        trackers.start(run_info(tmp_path))
        trackers.log({"train/loss": 1.0}, step=1)
        _wait_for(lambda: tracker.run_id and history(store, tracker.run_id, "train/loss"))
        with sqlite3.connect(tmp_path / "mlflow.db") as database:  # quicker than a lock, which MLflow sits out for 20 s
            database.execute("ALTER TABLE metrics RENAME TO gone")
        trackers.log({"train/loss": 2.0}, step=2)
        _wait_for(lambda: "mlflow: log failed" in caplog.text)
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            database.execute("ALTER TABLE gone RENAME TO metrics")
        database.close()
        trackers.log({"train/loss": 3.0}, step=3)
    assert [step for step, _ in history(store, tracker.run_id, "train/loss")] == [1, 3]
    assert client_of(store).get_run(tracker.run_id).info.status == "FINISHED"


def test_a_deleted_database_stops_nothing(tmp_path, store, caplog):
    caplog.set_level(logging.WARNING)
    with GuardedTrackers({"mlflow": tracker_of(store)}, close_timeout_s=60) as trackers:
        trackers.start(run_info(tmp_path))
        trackers.log({"train/loss": 1.0}, step=1)
        _wait_for(lambda: (tmp_path / "mlflow_run.json").exists())
        (tmp_path / "mlflow.db").unlink()
        (tmp_path / "mlflow.db").mkdir()  # nothing can be written there again
        for step in range(2, 6):
            trackers.log({"train/loss": 1.0}, step=step)
    assert "mlflow: " in caplog.text
    assert "failed" in caplog.text


def test_the_store_is_the_flag_then_the_environment_then_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"MLFLOW_TRACKING_URI": "http://tracking:5000"}
    assert resolve_tracking_uri("http://flag", tmp_path, environment) == "http://flag"
    assert resolve_tracking_uri(None, tmp_path, environment) == "http://tracking:5000"
    assert resolve_tracking_uri(None, Path("out"), {}) == f"sqlite:///{tmp_path}/out/mlflow.db"
    assert resolve_tracking_uri("sqlite:///here.db", tmp_path, {}) == f"sqlite:///{tmp_path}/here.db"


def test_a_new_store_with_system_metrics_uses_no_network_and_no_global_run(new_store):
    folder, said = new_store
    assert "alembic" not in said
    assert "Downloading" not in said
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == ["run"]
    run_id = json.loads((folder / "run" / "mlflow_run.json").read_text())["run_id"]
    data = client_of(f"sqlite:///{folder}/run/mlflow.db").get_run(run_id).data
    assert data.metrics["train/loss"] == 1.0
    assert "system/cpu_utilization_percentage" in data.metrics
    assert "system/system_memory_usage_megabytes" in data.metrics


def _wait_for(condition, timeout_s=60.0):
    import time

    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
