"""Whole sweeps on a real cluster: what they find, what they survive, what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import ray.train  # noqa: F401  # here, because two threads that import it at once trip over each other

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.sweeps.conclude import conclude
from lerobot_ray.sweeps.run import run_sweep
from lerobot_ray.sweeps.searchers import build_searcher
from lerobot_ray.sweeps.trial import best_trial
from lerobot_ray.tune import read_arguments, settled
from tests.on_ray.runs import wait_until, weights
from tests.sweeps.sweeps import command, events, plan_of, start_apart, table, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HOPELESS, GOOD, DIVERGES = 1e-9, 1e-3, 1e15
NO_BACKBONE = "--policy.optimizer_lr_backbone=1e-12"
GRID = {"searcher": "grid", "num_trials": None, "max_concurrent": 1, "resources_per_trial": {"decoders": 1}}


def run_here(arguments: list[str]):
    """The sweep on the Ray that this process is connected to; its queue and exit code."""
    queue, received = run_sweep(settled(read_arguments(arguments)))
    return queue, conclude(queue, received)


@pytest.fixture(scope="module")
def side_by_side(ray_cluster, toy_root, tmp_path_factory):
    """Two sweeps at once on one cluster: name -> (queue, exit code, folder)."""
    folder = tmp_path_factory.mktemp("sweeps")
    plain = write_sweep(folder / "plain", **GRID, parameters={"optimizer.lr": [1e-4, 1e-3, 1e-2]})
    stops = write_sweep(
        folder / "stops",
        **GRID,
        scheduler={"type": "asha", "grace_steps": 8},
        parameters={"optimizer.lr": [GOOD, HOPELESS, DIVERGES]},
    )
    store = f"--mlflow.tracking_uri=sqlite:///{folder / 'all.db'}"
    arguments = {
        "plain": command(toy_root, plain, folder / "plain" / "out"),
        "stops": command(
            toy_root, stops, folder / "stops" / "out", "--steps=40", "--mlflow.enable=true", store,
            "--mlflow.system_metrics=false",
        ),
    }  # fmt: skip
    found = {}

    def run(name: str) -> None:
        found[name] = (*run_here(arguments[name]), folder / name / "out")

    threads = [threading.Thread(target=run, args=(name,)) for name in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {"plain", "stops"}
    return found


def test_the_planted_rate_wins_the_hopeless_is_stopped_and_the_broken_recorded(side_by_side):
    queue, code, folder = side_by_side["stops"]
    trials = queue.state.trials
    assert code == 0
    assert best_trial(queue.state).values["optimizer.lr"] == GOOD
    assert [trials[number].status for number in range(3)] == ["finished", "stopped", "failed"]
    assert trials[0].step == 40
    assert trials[1].reason.startswith("asha at step")
    assert trials[1].step < 40
    assert "finite" in trials[2].reason
    assert (folder / "trials" / "001" / "checkpoints" / "last").exists(), "who is stopped saves first"
    assert (folder / "trials" / "000" / "report.html").exists()
    assert parse_train_config([f"--config_path={folder / 'best.yaml'}"]).optimizer.lr == GOOD
    assert "sweep.html" in os.listdir(folder)


def test_trials_are_nested_runs_of_the_sweep(side_by_side):
    from mlflow.tracking import MlflowClient

    folder = side_by_side["stops"][2]
    client = MlflowClient(f"sqlite:///{folder.parents[1] / 'all.db'}")
    experiment = client.get_experiment_by_name("lerobot_ray")
    runs = client.search_runs([experiment.experiment_id])
    parent = json.loads((folder / "mlflow_run.json").read_text())["run_id"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(runs) == 4
    assert len(children) == 3
    assert sum("train/loss" in run.data.metrics for run in children) == 2, "one trial failed in its first step"
    assert client.get_run(parent).info.status == "FINISHED"
    assert client.get_run(parent).data.metrics["trials_failed"] == 1


def test_trials_differ_in_what_is_swept_alone(side_by_side):
    queue, code, folder = side_by_side["plain"]
    assert code == 0
    assert [trial.status for trial in queue.state.trials.values()] == ["finished"] * 3
    assert len(table(folder)) == 4
    seeds = {parse_train_config([f"--config_path={folder / 'trials' / name}"]).seed for name in ("000", "002")}
    assert seeds == {1000}
    processes = {event["slot"] for event in events(folder, "begin")}
    assert processes == {0}, "one slot trained them all"


def test_a_killed_driver_resumes_to_the_same_table(side_by_side, toy_root, tmp_path):
    file = side_by_side["plain"][0].plan.file
    arguments = command(toy_root, file, tmp_path / "out")
    log = tmp_path / "log"
    first = start_apart(arguments, log)

    def is_in_the_middle() -> bool:
        assert first.poll() is None, log.read_text()
        second = [event for event in events(tmp_path / "out", "report") if event["trial"] == 1]
        return bool(second) and (tmp_path / "out" / "trials" / "001" / "checkpoints" / "000004").exists()

    wait_until(is_in_the_middle, within_s=180)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert len(events(tmp_path / "out", "end")) < 3
    again = start_apart([*arguments, "--resume"], log)
    assert again.wait(timeout=240) == 0, log.read_text()
    assert table(tmp_path / "out") == table(side_by_side["plain"][2])
    begun = [event["trial"] for event in events(tmp_path / "out", "begin")]
    assert begun.count(0) == 1, "what had ended is kept"
    assert len(events(tmp_path / "out", "start")) == 2


def test_who_takes_over_has_the_donors_weights_and_a_rate_of_its_own(ray_cluster, toy_root, tmp_path):
    """The donor learns fast. Who takes over draws a rate that moves nothing: it must end where the donor was."""
    settings = {
        "num_trials": 2,
        "max_concurrent": 1,
        "scheduler": {"type": "pbt", "interval": 6, "quantile": 0.5, "resample": 0},
        "parameters": {"optimizer.lr": [HOPELESS, GOOD]},
    }
    file = write_sweep(tmp_path, **settings, searcher={"type": "random", "seed": seed_with(tmp_path, settings)})
    queue, code = run_here(command(toy_root, file, tmp_path / "out", "--log_freq=6", "--save_freq=6", NO_BACKBONE))
    assert code == 0
    (event,) = events(tmp_path / "out", "generation")
    taker, donor = event["exploits"][0]["trial"], event["exploits"][0]["donor"]
    assert queue.state.trials[taker].values == {"optimizer.lr": HOPELESS}
    assert queue.state.trials[taker].took_over == [(6, donor)]
    begun = weights(tmp_path / "out" / "trials" / f"{donor:03d}", 6)
    ended = weights(tmp_path / "out" / "trials" / f"{taker:03d}", 12)
    moved = weights(tmp_path / "out" / "trials" / f"{donor:03d}", 12)
    learned = [name for name in begun if "running" not in name and "num_batches" not in name]
    assert max(float(np.abs(ended[name] - begun[name]).max()) for name in learned) < 1e-6
    assert max(float(np.abs(moved[name] - begun[name]).max()) for name in learned) > 1e-4


def seed_with(folder: Path, settings: dict) -> int:
    """A seed that gives the two trials different rates, and whoever takes over the one that moves nothing."""
    from lerobot_ray.sweeps.population import exploits

    for seed in range(100):
        sweep = plan_of(folder / "probe", "--log_freq=6", **settings, searcher={"type": "random", "seed": seed}).sweep
        rates = [build_searcher(sweep).suggest(number) for number in range(2)]
        found = [values["optimizer.lr"] for values in rates]
        if set(found) != {HOPELESS, GOOD}:
            continue
        scores = {number: 0.0 if rate == GOOD else 1.0 for number, rate in enumerate(found)}
        (entry,) = exploits(sweep, scores, dict(enumerate(rates)), generation=1)
        if entry.values["optimizer.lr"] == HOPELESS:
            return seed
    raise AssertionError("no seed does")
