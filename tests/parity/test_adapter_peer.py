"""Adapters change hands: written here and loaded by lerobot, and the other way round, with the same actions."""

import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.policies.adapters.attach import adapter_of
from lerobot_ray.policies.adapters.plan import build_adapted, plan_adapter, policy_of_run
from lerobot_ray.policies.registry import policy_class
from tests.parity.peer import peer_python, run_lerobot_train, run_peer
from tests.policies.adapters.test_adapters import based_on, saved_base, train
from tests.policies.cases import CASES

pytestmark = [pytest.mark.lerobot, pytest.mark.slow]


@pytest.fixture(autouse=True, scope="module")
def peer_has_peft():
    env = {**os.environ, "PYTHONPATH": os.environ.get("PEER_PYTHONPATH", "")}
    if subprocess.run([peer_python(), "-c", "import peft"], env=env, capture_output=True, check=False).returncode:
        pytest.skip("the peer has no peft")


def here(policy, batch):
    policy.eval().reset()
    torch.manual_seed(0)
    return torch.stack([policy.select_action(dict(batch)) for _ in range(4)]).detach()


@pytest.mark.parametrize(
    ("name", "peft"),
    [
        ("act_vae_two_cameras", PeftConfig(r=4)),
        ("act_vae_two_cameras", PeftConfig(r=4, target_modules="all-linear")),
        ("diffusion_resize_groups", PeftConfig(r=4)),
    ],
)
def test_an_adapter_from_here_gives_the_same_actions_there(tmp_path, name, peft):
    case = CASES[name]
    config = based_on(name, saved_base(name, tmp_path / "base"))
    plan = plan_adapter(config, peft)
    policy = build_adapted(config, plan, loads_weights=True)
    train(policy, case)
    policy.config = policy_of_run(config, plan)
    policy.save_pretrained(tmp_path / "adapter")
    save_file(case.observation(0), tmp_path / "batch.safetensors")
    run_peer("run_adapter.py", tmp_path / "adapter", tmp_path / "batch.safetensors", tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    assert not torch.allclose(found["base"], found["adapted"])
    torch.testing.assert_close(here(policy, case.observation(0)), found["adapted"], rtol=1e-4, atol=1e-5)


def test_an_adapter_from_there_gives_the_same_actions_here_and_is_resumed(tmp_path, monkeypatch):
    run_peer("make_dataset.py", tmp_path / "dataset")
    common = {
        "dataset__repo_id": "local/tiny",
        "dataset__root": tmp_path / "dataset",
        "batch_size": 4,
        "num_workers": 0,
        "policy__push_to_hub": "false",
        "policy__device": "cpu",
        "steps": 2,
        "save_freq": 2,
    }
    small = {
        "policy__type": "act",
        "policy__chunk_size": 4,
        "policy__n_action_steps": 4,
        "policy__dim_model": 16,
        "policy__n_heads": 2,
        "policy__dim_feedforward": 32,
        "policy__latent_dim": 4,
        "policy__pretrained_backbone_weights": "null",
    }
    run_lerobot_train(output_dir=tmp_path / "base", **small, **common)
    base = find_checkpoint(tmp_path / "base") / "pretrained_model"
    run_lerobot_train(
        output_dir=tmp_path / "lora",
        policy__path=base,
        peft__r=4,
        peft__target_modules='["linear1","linear2"]',
        peft__full_training_modules='["action_head"]',
        optimizer__lr="0.05",
        use_policy_training_preset="false",
        optimizer__type="adamw",
        scheduler__type="constant_with_warmup",
        scheduler__num_warmup_steps=0,
        **common,
    )
    checkpoint = find_checkpoint(tmp_path / "lora")
    folder = checkpoint / "pretrained_model"
    batch = {"observation.images.front": torch.rand(2, 3, 64, 96), "observation.state": torch.randn(2, 4)}
    save_file(batch, tmp_path / "batch.safetensors")
    run_peer("run_adapter.py", folder, tmp_path / "batch.safetensors", tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    policy = policy_class("act").from_pretrained(folder)
    torch.testing.assert_close(here(policy, batch), found["adapted"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found["base"], found["adapted"])

    saved = load_file(folder / "adapter_model.safetensors")
    assert adapter_of(policy).weights().keys() == saved.keys()
    config = json.loads((folder / "config.json").read_text())
    resumed = plan_adapter(based_on_config(config, folder), PeftConfig(r=4), checkpoint=folder)
    assert resumed.base == str(base)


def based_on_config(values, folder):
    from lerobot_ray.policies.config_file import read_config

    config = read_config(folder)
    assert config.use_peft == values["use_peft"]
    return config
