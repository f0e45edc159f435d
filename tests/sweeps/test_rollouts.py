"""Trials that play rollouts: judged by them, each result under its step, none owed at the end."""

from __future__ import annotations

import json

import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.sweeps.conclude import conclude
from lerobot_ray.sweeps.journal import JOURNAL_FILE
from lerobot_ray.sweeps.run import run_sweep
from lerobot_ray.tracking.metric_log import load_metrics
from lerobot_ray.tune import read_arguments, settled
from tests.reach_policy import REACH, record_reach
from tests.sweeps.sweeps import command, events, lines_of, table, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RATES = [1e-3, 1e-9]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A sweep by success in reach: two rates, 8 steps, rollouts every 4."""
    folder = tmp_path_factory.mktemp("rollouts")
    root = record_reach(folder / "reach")
    file = write_sweep(
        folder, metric="eval/pc_success", mode="max", searcher="grid", num_trials=None, max_concurrent=1,
        resources_per_trial={"decoders": 1}, parameters={"optimizer.lr": RATES},
    )  # fmt: skip
    rollouts = ["--env_eval_freq=4", "--eval.n_episodes=3", "--eval.videos=1", "--eval.use_async_envs=false"]
    usual = ["--steps=8", "--save_freq=0", "--keep_last=1", "--mlflow.enable=true", "--mlflow.system_metrics=false"]
    return command(root, file, folder / "out", *REACH, *rollouts, *usual)


def run(arguments):
    queue, received = run_sweep(settled(read_arguments(arguments)))
    return queue, conclude(queue, received)


@pytest.fixture(scope="module")
def swept(arguments, ray_cluster):
    queue, code = run(arguments)
    assert code == 0
    return queue


def test_trials_report_success_under_its_step(swept):
    folder = swept.plan.folder
    for trial in swept.state.trials.values():
        place = swept.plan.trial_folder(trial.number)
        assert (trial.status, [step for step, _ in trial.reports]) == ("finished", [4, 8])
        series = load_metrics(place).series["eval/pc_success"]
        assert list(zip(series.step.tolist(), series.value.tolist(), strict=True)) == trial.reports
        infos = [json.loads((place / "eval" / f"eval_info_step_{step:06d}.json").read_text()) for step in (4, 8)]
        assert [info["overall"]["pc_success"] for info in infos] == [value for _, value in trial.reports]
        assert [int(path.name) for path in complete_checkpoints(place)] == [8], "what was played is let go"
        assert "<video" in (place / "report.html").read_text()
    assert len(events(folder, "end")) == 2
    assert "eval/pc_success" in (folder / "sweep.html").read_text()


def test_results_are_in_the_trials_mlflow_runs(swept):
    from mlflow.tracking import MlflowClient

    for trial in swept.state.trials.values():
        remembered = json.loads((swept.plan.trial_folder(trial.number) / "mlflow_run.json").read_text())
        client = MlflowClient(remembered["tracking_uri"])
        history = client.get_metric_history(remembered["run_id"], "eval/pc_success")
        assert sorted((metric.step, metric.value) for metric in history) == trial.reports
        assert [file.path for file in client.list_artifacts(remembered["run_id"], "eval")] == [
            "eval/step_4",
            "eval/step_8",
        ]


def test_a_resumed_sweep_plays_what_was_owed(swept, arguments):
    """As if the driver had died while the last checkpoint of the last trial was played."""
    folder = swept.plan.folder
    before = table(folder)
    kept = [event for event in lines_of(folder / JOURNAL_FILE) if not _is_late(event)]
    (folder / JOURNAL_FILE).write_text("".join(f"{json.dumps(event)}\n" for event in kept))
    result = swept.plan.trial_folder(1) / "eval" / "eval_info_step_000008.json"
    result.unlink()

    queue, code = run([*arguments, "--resume"])
    assert code == 0
    assert [step for step, _ in queue.state.trials[1].reports] == [4, 8]
    assert result.is_file()
    assert table(folder) == before
    assert [event["trial"] for event in events(folder, "begin")] == [0, 1, 1], "what had ended is kept"


def _is_late(event):
    if event["event"] == "done":
        return True
    is_last = event.get("trial") == 1 and event["event"] in ("report", "end")
    return is_last and event["step"] == 8
