"""A policy pushed from here is loaded by LeRobot from the same Hub, with the same numbers."""

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file

from lerobot_ray.hub.fetch import fetch
from lerobot_ray.hub.push import push_policy
from lerobot_ray.processing import processors_for_run
from tests.hub_server import HubServer
from tests.parity.peer import run_peer
from tests.parity.test_full_circle import CLOSE, OPTIONS, fresh, ours, raw_batch, rollout, save_inputs, stats

pytestmark = [pytest.mark.lerobot, pytest.mark.hub, pytest.mark.slow]


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_pushed_policy_loads_in_lerobot(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "own"))
    config, policy = fresh(kind)
    folder = tmp_path / "policy"
    policy.save_pretrained(folder)
    for processor in processors_for_run(config, stats()):
        processor.save_pretrained(folder)
    batch, observations = raw_batch(kind), rollout()
    save_inputs(tmp_path / "batch.safetensors", batch, observations)
    with HubServer(tmp_path / "hub") as hub:
        token = hub.add_user("alice")
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        HfApi(endpoint=hub.endpoint, token=token).create_repo("alice/policy", private=True)
        push_policy(folder, "alice/policy", beside={"README.md": b"---\nlicense: apache-2.0\n---\n# policy\n"})
        there = tmp_path / "theirs.safetensors"
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        run_peer("run_policy.py", "alice/policy", tmp_path / "batch.safetensors", there, environment=environment)
        mine = ours(fetch("alice/policy"), batch, observations)
    theirs = load_file(there)
    assert theirs.keys() == mine.keys()
    for name, value in theirs.items():
        assert torch.allclose(value, mine[name], **CLOSE), name
