"""Evaluations of a real training run: under their steps, in every place, none lost."""

from __future__ import annotations

import json

import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.tracking.metric_log import load_metrics
from tests.on_ray.runs import command, refusals, run_here
from tests.reach_policy import REACH, record_reach


@pytest.fixture(scope="module")
def reach_root(tmp_path_factory):
    return record_reach(tmp_path_factory.mktemp("reach") / "reach")


def run_command(root, output_dir, *flags):
    evaluation = ["--env_eval_freq=4", "--eval.n_episodes=3", "--eval.videos=1", "--eval.use_async_envs=false"]
    return command(root, output_dir, *REACH, *evaluation, "--steps=10", "--save_freq=0", *flags)


@pytest.mark.ray
@pytest.mark.slow
def test_results_are_under_their_steps_and_the_best_checkpoint_stays(reach_root, tmp_path, ray_cluster):
    from mlflow.tracking import MlflowClient

    out = tmp_path / "run"
    flags = ["--keep_last=1", "--best_metric=eval/pc_success", "--ema.enable=true", "--mlflow.enable=true"]
    assert run_here(run_command(reach_root, out, *flags, "--mlflow.system_metrics=false")) == 0

    series = load_metrics(out).series
    assert series["eval/pc_success"].step.tolist() == [4, 8, 10]
    infos = {step: json.loads((out / "eval" / f"eval_info_step_{step:06d}.json").read_text()) for step in (4, 8, 10)}
    for place, (step, info) in enumerate(infos.items()):
        assert info["evaluation"]["step"] == step
        assert info["overall"]["n_episodes"] == 3
        assert series["eval/avg_sum_reward"].value[place] == info["overall"]["avg_sum_reward"]
        assert len(list((out / "eval" / f"videos_step_{step:06d}").rglob("*.mp4"))) == 1
    assert len({info["overall"]["avg_sum_reward"] for info in infos.values()}) == 3, "of different weights"

    remembered = json.loads((out / "mlflow_run.json").read_text())
    client = MlflowClient(remembered["tracking_uri"])
    history = client.get_metric_history(remembered["run_id"], "eval/pc_success")
    assert sorted(metric.step for metric in history) == [4, 8, 10]
    assert client.get_run(remembered["run_id"]).info.status == "FINISHED"

    scores = json.loads((out / "checkpoints" / "scores.json").read_text())
    assert sorted(scores) == ["10", "4", "8"]
    best = max(scores, key=lambda step: (scores[step], int(step)))
    assert {int(path.name) for path in complete_checkpoints(out)} == {int(best), 10}
    page = (out / "report.html").read_text()
    assert "Success, % of episodes" in page
    assert "<video" in page


@pytest.mark.ray
@pytest.mark.slow
def test_what_was_due_and_not_done_is_done_after_a_restart(reach_root, tmp_path, ray_cluster):
    out = tmp_path / "run"
    assert run_here(run_command(reach_root, out, "--steps=8")) == 0
    kept = (out / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in kept if not ('"eval/pc_success"' in line and '"step": 4' in line)]
    assert len(lines) == len(kept) - 1
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (out / "eval" / "eval_info_step_000004.json").unlink()  # as if the driver had died before

    assert run_here(run_command(reach_root, out, "--steps=8", "--resume=auto")) == 0
    assert (out / "eval" / "eval_info_step_000004.json").is_file()
    assert load_metrics(out).series["eval/pc_success"].step.tolist() == [4, 8]


REFUSED = {
    "observations that are not the policy's": (
        ["--env.type=reach", "--env.obs_type=environment_state_agent_pos"],
        "To train without rollouts: --env=null",
    ),
    "an environment that is not installed": (["--env.type=pusht"], "lerobot-ray[pusht]"),
    "no checkpoints to play": (["--env.type=reach", "--save_checkpoint=false"], "save_checkpoint"),
    "success without rollouts": (["--best_metric=eval/pc_success"], "Add --env.type"),
}


def test_refused_before_anything_starts(toy_root, tmp_path):
    cases = {name: command(toy_root, tmp_path / "new", *flags) for name, (flags, _) in REFUSED.items()}
    for name, (text, has_ray) in refusals(cases).items():
        assert REFUSED[name][1] in text, name
        assert not has_ray
    assert not (tmp_path / "new").exists()
