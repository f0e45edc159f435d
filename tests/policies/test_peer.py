"""With LeRobot 0.6.1 in its own interpreter (PEER_PYTHON): folders of every case exchanged, and the bridge at work."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot_ray.policies.config_file import read_config
from lerobot_ray.policies.registry import policy_class
from tests.parity.peer import peer_python
from tests.policies.build import build
from tests.policies.cases import CASES, ROLLOUT_STEPS

pytestmark = pytest.mark.lerobot

REPOSITORY = Path(__file__).resolve().parents[2]
ACTIONS_ATOL = {"act": 1e-5, "diffusion": 1e-3}
"""Two versions of torch round differently, and sampling magnifies it."""


def run_there(script: str, root: Path) -> str:
    """Runs a script of this folder under LeRobot's interpreter, with this repository importable."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [peer_python(), "-m", f"tests.policies.{script}", str(root)]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def actions(policy, case):
    policy.reset()
    torch.manual_seed(1)
    return np.stack([policy.select_action(case.observation(i)).numpy() for i in range(ROLLOUT_STEPS)])


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    peer_python()  # skips without one
    root = tmp_path_factory.mktemp("exchange")
    ours = {}
    for name, case in CASES.items():
        torch.manual_seed(4)
        policy = build(case).eval()
        policy.save_pretrained(root / "here" / name)
        ours[name] = actions(policy, case)
    run_there("peer_exchange", root)
    return root, ours


@pytest.mark.parametrize("name", CASES)
def test_a_folder_written_here_acts_the_same_there(exchanged, name):
    root, ours = exchanged
    np.testing.assert_allclose(
        np.load(root / "there" / f"{name}.npz")["loaded"], ours[name], atol=ACTIONS_ATOL[CASES[name].type]
    )


@pytest.mark.parametrize("name", CASES)
def test_a_folder_written_there_acts_the_same_here(exchanged, name):
    root, _ = exchanged
    folder = root / "there" / name
    policy = policy_class(CASES[name].type).from_pretrained(folder, strict=True)
    expected = np.load(root / "there" / f"{name}.npz")["own"]
    np.testing.assert_allclose(actions(policy, CASES[name]), expected, atol=ACTIONS_ATOL[CASES[name].type])
    again = root / "again" / name
    policy.save_pretrained(again)
    assert (again / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert read_config(again) == policy.config


def test_policies_only_lerobot_has_train_through_the_bridge(tmp_path):
    printed = run_there("peer_bridge", tmp_path)
    assert "tdmpc" in printed
    assert "vqbet" in printed
