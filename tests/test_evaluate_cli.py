"""`python -m lerobot_ray.evaluate`: what it writes, and what it refuses in one line."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from lerobot_ray.config.evaluate import parse_evaluate
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.evaluate import main
from lerobot_ray.on_ray.evaluate import find_policies
from tests.reach_policy import REACH, save_reach_policy, save_reach_run

EVAL = [*REACH, "--eval.n_episodes=3", "--eval.videos=1", "--eval.use_async_envs=false"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_reach_policy(tmp_path_factory.mktemp("policy") / "pretrained_model")


@pytest.mark.ray
def test_one_policy(policy, tmp_path, ray_cluster, capsys):
    out = tmp_path / "out"
    assert main([f"--policy.path={policy}", f"--output_dir={out}", "--actors", "2", "--seed=3", *EVAL]) == 0
    info = json.loads((out / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 3
    assert [episode["seed"] for episode in info["episodes"]] == [3, 4, 5]
    assert len(info["overall"]["pc_success_interval"]) == 2
    assert [path.name for path in out.rglob("*.mp4")] == ["eval_episode_0.mp4"]
    page = (out / "evaluation.html").read_text()
    assert "<video" in page
    assert "3 episodes" in capsys.readouterr().err


def test_last_is_named_after_its_step(tmp_path):
    run = save_reach_run(tmp_path / "run", (5, 10))
    for path in ("last", "last/pretrained_model", "000010"):
        command = parse_evaluate([f"--policy.path={run / 'checkpoints' / path}", *REACH])
        (found,) = find_policies(command)
        assert (found.name, found.step) == ("step 10", 10)
        assert found.source.folder == run / "checkpoints" / "000010" / "pretrained_model"


@pytest.mark.ray
def test_all_checkpoints_of_a_run(tmp_path, ray_cluster):
    run, out = save_reach_run(tmp_path / "run", (5, 10)), tmp_path / "out"
    flags = ["--eval.videos=0", "--policy.n_action_steps=2", f"--output_dir={out}"]
    assert main([f"--policy.path={run}", *EVAL, *flags]) == 0
    index = json.loads((out / "eval_info.json").read_text())["policies"]
    assert [entry["step"] for entry in index] == [5, 10]
    assert json.loads((out / "step_10" / "eval_info.json").read_text())["overall"]["n_episodes"] == 3
    page = (out / "evaluation.html").read_text()
    assert "Over training" in page
    assert "95 % interval" in page


REFUSED = {
    "no policy": (REACH, "no policy"),
    "no such policy": (["--policy.path=/nonexistent", *REACH], "/nonexistent"),
    "no environment": (["--policy.path={policy}"], "no environment"),
    "unknown environment": (["--policy.path={policy}", "--env.type=reech"], "reach"),
    "pusht, which is an extra": (["--policy.path={policy}", "--env.type=pusht"], "pip install 'lerobot-ray[pusht]'"),
    "aloha, which is an extra": (["--policy.path={policy}", "--env.type=aloha"], "pip install 'lerobot-ray[aloha]'"),
    "other observations": (["--policy.path={policy}", "--env.type=reach"], "observation.environment_state"),
    "unknown flag": (["--policy.path={policy}", *REACH, "--eval.n_episode=3"], "n_episodes"),
    "unknown setting of the policy": (["--policy.path={policy}", *REACH, "--policy.n_action_step=1"], "n_action_steps"),
    "no episodes": (["--policy.path={policy}", *REACH, "--eval.n_episodes=0"], "n_episodes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name, policy, tmp_path, capsys):
    flags, said = REFUSED[name]
    if "which is an extra" in name and find_spec(f"gym_{name.split(',')[0]}") is not None:
        pytest.skip("it is installed here")
    assert main([*(flag.replace("{policy}", str(policy)) for flag in flags), f"--output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_policies_are_a_list():
    command = parse_evaluate(['--policy.path=["a", "b"]', "--policy.device=cpu", *REACH])
    assert command.paths == ("a", "b")
    assert command.policy_flags == {("device",): "cpu"}
    with pytest.raises(ConfigError, match="no policy"):
        parse_evaluate(REACH)


def test_help_lists_the_flags(capsys):
    assert main(["--help", "--env.type=reach"]) == 0
    page = capsys.readouterr().out
    assert "--eval.n_episodes" in page
    assert "--env.observation_height" in page
    assert "--actors" in page
