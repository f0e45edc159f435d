"""Evaluations of a real training run: under their steps, in every place, none lost."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import av
import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.tracking.metric_log import load_metrics
from tests.on_ray.runs import command, refusals, run_here, start_apart, wait_until
from tests.reach_policy import REACH, record_reach, save_reach_policy


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
    for step in (4, 8, 10):
        (film,) = client.list_artifacts(remembered["run_id"], f"eval/step_{step}")
        local = client.download_artifacts(remembered["run_id"], film.path, str(tmp_path))
        with av.open(local) as container:
            episode = infos[step]["episodes"][0]
            assert sum(1 for _ in container.decode(video=0)) == episode["length"] + 1
    played = {step: Path(info["evaluation"]["folder"]).name for step, info in infos.items()}
    assert set(played.values()) == {"pretrained_model_ema"}, "the averaged weights"

    scores = json.loads((out / "checkpoints" / "scores.json").read_text())
    assert sorted(scores) == ["10", "4", "8"]
    best = max(scores, key=lambda step: (scores[step], int(step)))
    assert {int(path.name) for path in complete_checkpoints(out)} == {int(best), 10}
    page = (out / "report.html").read_text()
    assert "Success, % of episodes" in page
    assert "<video" in page


@pytest.mark.ray
@pytest.mark.slow
def test_a_sharded_run_whose_driver_is_killed_owes_nothing_in_the_end(reach_root, tmp_path, ray_cluster):
    """Two workers with a part of the averaged weights each; killed before there is a result."""
    out, log = tmp_path / "run", tmp_path / "log"
    shards = ["--parallelism.dp_shard=-1", "--ray.num_workers=2", '--ray.resources_per_worker={"CPU": 0.5}']
    flags = [*shards, "--batch_size=2", "--ema.enable=true", "--steps=8"]
    first = start_apart(run_command(reach_root, out, *flags, "--eval.n_episodes=200"), log)

    def is_owed() -> bool:
        assert first.poll() is None, log.read_text()
        return bool(complete_checkpoints(out))

    wait_until(is_owed, within_s=240)
    first.kill()
    first.wait()
    assert not list(out.glob("eval/eval_info_*.json"))

    assert run_here(run_command(reach_root, out, *flags, "--resume=auto")) == 0
    assert load_metrics(out).series["eval/pc_success"].step.tolist() == [4, 8]
    for step in (4, 8):
        info = json.loads((out / "eval" / f"eval_info_step_{step:06d}.json").read_text())
        assert info["overall"]["n_episodes"] == 3
        assert Path(info["evaluation"]["folder"]).name == "pretrained_model_ema"


@pytest.mark.ray
@pytest.mark.slow
def test_an_adapter_is_played_with_its_base(reach_root, tmp_path, ray_cluster):
    base, out = save_reach_policy(tmp_path / "base"), tmp_path / "run"
    whole = run_command(reach_root, out, "--env_eval_freq=2", "--steps=4")
    own = [flag for flag in whole if not flag.startswith("--policy.")]
    assert run_here([*own, f"--policy.path={base}", "--peft.r=4", "--optimizer.lr=0.05"]) == 0
    infos = [json.loads((out / "eval" / f"eval_info_step_{step:06d}.json").read_text()) for step in (2, 4)]
    returns = {info["overall"]["avg_sum_reward"] for info in infos}
    assert len(returns) == 2, "of different adapters"
    assert (Path(infos[1]["evaluation"]["folder"]) / "adapter_model.safetensors").is_file()
    assert load_metrics(out).series["eval/pc_success"].step.tolist() == [2, 4]


REFUSED = {
    "observations that are not the policy's": (
        ["--env.type=reach", "--env.obs_type=environment_state_agent_pos"],
        "To train without rollouts: --env=null",
    ),
    "no checkpoints to play": (["--env.type=reach", "--save_checkpoint=false"], "save_checkpoint"),
    "success without rollouts": (["--best_metric=eval/pc_success"], "Add --env.type"),
}
for _extra in ("pusht", "aloha"):
    if find_spec(f"gym_{_extra}") is None:
        REFUSED[f"{_extra}, which is not installed"] = ([f"--env.type={_extra}"], f"lerobot-ray[{_extra}]")


def test_refused_before_anything_starts(toy_root, tmp_path):
    cases = {name: command(toy_root, tmp_path / "new", *flags) for name, (flags, _) in REFUSED.items()}
    for name, (text, has_ray) in refusals(cases).items():
        assert REFUSED[name][1] in text, name
        assert not has_ray
    assert not (tmp_path / "new").exists()
