"""Optimizer state through LeRobot's files: training goes on bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lerobot_ray.checkpoint.optimizer import (
    load_optimizer_state,
    load_scheduler_state,
    save_optimizer_state,
    save_scheduler_state,
)
from lerobot_ray.core.errors import CheckpointError


def training(kind, seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    groups = [{"params": list(model[0].parameters())}, {"params": list(model[1].parameters()), "lr": 1e-3}]
    optimizer = kind(groups, lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


def steps(model, optimizer, schedule, count, first=0):
    for i in range(first, first + count):
        model(torch.full((1, 3), float(i))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)]
)
def test_a_saved_run_goes_on_bit_for_bit(tmp_path, kind):
    unbroken = training(kind)
    steps(*unbroken, 6)
    first = training(kind)
    steps(*first, 3)
    save_optimizer_state(first[1].state_dict(), tmp_path)
    save_scheduler_state(first[2].state_dict(), tmp_path)

    model, optimizer, schedule = training(kind, seed=1)
    model.load_state_dict(first[0].state_dict())
    optimizer.load_state_dict(load_optimizer_state(optimizer.state_dict(), tmp_path))
    schedule.load_state_dict(load_scheduler_state(tmp_path))
    steps(model, optimizer, schedule, 3, first=3)
    for a, b in zip(model.parameters(), unbroken[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_files_are_named_and_keyed_as_lerobot_names_them(tmp_path):
    model, optimizer, schedule = training(torch.optim.AdamW)
    steps(model, optimizer, schedule, 1)
    save_optimizer_state(optimizer.state_dict(), tmp_path)
    save_scheduler_state(schedule.state_dict(), tmp_path)
    tensors = load_file(tmp_path / "optimizer_state.safetensors")
    assert set(tensors) == {f"state/{i}/{name}" for i in range(4) for name in ("exp_avg", "exp_avg_sq", "step")}
    assert tensors["state/0/step"].shape == ()
    groups = json.loads((tmp_path / "optimizer_param_groups.json").read_text())
    assert [group["params"] for group in groups] == [[0, 1], [2, 3]]
    assert groups[0]["betas"] == [0.9, 0.999]
    assert groups[0]["initial_lr"] == 1e-2
    assert json.loads((tmp_path / "scheduler_state.json").read_text())["lr_lambdas"] == [None, None]


def test_another_policy_is_refused(tmp_path):
    model, optimizer, schedule = training(torch.optim.AdamW)
    steps(model, optimizer, schedule, 1)
    save_optimizer_state(optimizer.state_dict(), tmp_path)
    other = torch.optim.AdamW(model.parameters())
    with pytest.raises(CheckpointError, match=r"\[2, 2\].*\[4\]"):
        load_optimizer_state(other.state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match="no optimizer state"):
        load_optimizer_state(other.state_dict(), tmp_path / "nowhere")


def test_a_hyper_parameter_the_writer_did_not_know_keeps_its_fresh_value(tmp_path):
    """Older torch versions write fewer keys."""
    _, optimizer, _ = training(torch.optim.AdamW)
    save_optimizer_state(optimizer.state_dict(), tmp_path)
    path = tmp_path / "optimizer_param_groups.json"
    groups = [
        {k: v for k, v in group.items() if k != "decoupled_weight_decay"} for group in json.loads(path.read_text())
    ]
    path.write_text(json.dumps(groups))
    loaded = load_optimizer_state(optimizer.state_dict(), tmp_path)
    assert loaded["param_groups"][0]["decoupled_weight_decay"] is True
