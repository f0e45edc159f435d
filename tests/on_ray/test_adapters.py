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
