"""An adapter run through Ray: interrupted and resumed it is the unbroken one, and a later run trains it further."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lerobot_ray.policies.adapters.attach import adapter_of
from lerobot_ray.policies.protocol import PretrainedPolicy
from lerobot_ray.policies.registry import policy_class
from tests.on_ray.runs import checkpoint, command, run_here, samples

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def on_base(root, output_dir, base, *flags):
    """The command line of a run that starts from the policy at `base`."""
    whole = command(root, output_dir, "--batch_size=4", "--audit=true", "--save_freq=3", *flags)
    return [f"--policy.path={base}", *(flag for flag in whole if not flag.startswith("--policy."))]


def adapter(output_dir, step, kind="pretrained_model"):
    return load_file(checkpoint(output_dir, step) / kind / "adapter_model.safetensors")


def test_a_run_of_an_adapter(ray_cluster, toy_root, tmp_path, capsys):
    assert run_here(command(toy_root, tmp_path / "whole", "--steps=2")) == 0
    base = shutil.copytree(checkpoint(tmp_path / "whole", 2) / "pretrained_model", tmp_path / "base")
    flags = ["--peft.r=4", "--ema.enable=true", "--optimizer.lr=0.01"]
    capsys.readouterr()
    assert run_here(on_base(toy_root, tmp_path / "unbroken", base, "--steps=6", *flags)) == 0
    said = capsys.readouterr().err
    assert f"adapter  LORA of rank 4 on {base}: " in said
    assert "parameters trained of" in said

    parts = tmp_path / "parts"
    assert run_here(on_base(toy_root, parts, base, "--steps=3", *flags)) == 0
    capsys.readouterr()
    assert run_here(on_base(toy_root, parts, base, "--steps=6", "--resume=auto")) == 2
    assert "holds an adapter, and this run trains a whole policy" in capsys.readouterr().err
    assert run_here([f"--config_path={parts}", "--resume=true", "--steps=6"]) == 0
    for kind in ("pretrained_model", "pretrained_model_ema"):
        mine, theirs = adapter(tmp_path / "unbroken", 6, kind), adapter(parts, 6, kind)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (samples(tmp_path / "unbroken") == samples(parts)).all()

    saved = json.loads((checkpoint(parts, 6) / "pretrained_model" / "config.json").read_text())
    assert (saved["use_peft"], saved["pretrained_path"]) == (True, str(base))
    further = tmp_path / "further"
    folder = checkpoint(parts, 6) / "pretrained_model"
    assert run_here(on_base(toy_root, further, folder, "--steps=1", "--optimizer.lr=1e-9")) == 0
    start, end = adapter(parts, 6), adapter(further, 1)
    assert start.keys() == end.keys()
    assert all(torch.allclose(start[name], end[name], atol=1e-6) for name in start), "it went on from that adapter"
    assert any(not torch.equal(start[name], end[name]) for name in start)
    settings = json.loads((checkpoint(further, 1) / "pretrained_model" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)

    policy = policy_class("act").from_pretrained(folder)
    assert isinstance(policy, PretrainedPolicy)
    assert torch.equal(dict(adapter_of(policy).weights())[next(iter(start))], start[next(iter(start))])


def test_an_adapter_is_evaluated_as_the_policy_it_merges_into(ray_cluster, tmp_path):
    from lerobot_ray.config.peft import PeftConfig
    from lerobot_ray.config.policy_file import load_policy_config
    from lerobot_ray.evaluate import main
    from lerobot_ray.policies.adapters.load import merge_adapter
    from lerobot_ray.policies.adapters.plan import build_adapted, plan_adapter, policy_of_run
    from tests.reach_policy import REACH, save_reach_policy

    base = save_reach_policy(tmp_path / "base")
    config = load_policy_config(base)
    config.pretrained_path = str(base)
    plan = plan_adapter(config, PeftConfig(r=4))
    policy = build_adapted(config, plan, loads_weights=True)
    torch.manual_seed(0)
    for weights in adapter_of(policy).weights().values():
        torch.nn.init.normal_(weights)
    policy.config = policy_of_run(config, plan)
    policy.save_pretrained(tmp_path / "adapter")
    for file in base.glob("policy_*"):
        shutil.copy(file, tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")

    played = {}
    for name in ("base", "adapter", "merged"):
        flags = ["--eval.n_episodes=3", "--eval.videos=0", "--eval.use_async_envs=false", "--seed=1"]
        out = tmp_path / f"of {name}"
        assert main([f"--policy.path={tmp_path / name}", f"--output_dir={out}", *REACH, *flags]) == 0
        episodes = json.loads((out / "eval_info.json").read_text())["episodes"]
        played[name] = [episode["sum_reward"] for episode in episodes]
    assert played["adapter"] == pytest.approx(played["merged"], abs=1e-3)
    assert played["adapter"] != pytest.approx(played["base"], abs=1e-3)
