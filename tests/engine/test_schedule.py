"""Schedules: LeRobot's factors, the reference values of its formats, and states its strict reader takes."""

import json
from pathlib import Path

import pytest
import torch

from lerobot_ray.config.optim import (
    CosineDecayWithWarmupSchedulerConfig,
    DiffuserSchedulerConfig,
    SchedulerConfig,
    VQBeTSchedulerConfig,
)
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.engine.schedule import build_schedule, build_schedules, learning_rate_factor
from tests.engine.optim_cases import SCHEDULES, STEPS

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "optim.json").read_text())["schedules"]
VLA = CosineDecayWithWarmupSchedulerConfig(num_warmup_steps=1000, num_decay_steps=30_000, peak_lr=1e-4, decay_lr=2.5e-6)
REFERENCE = [
    (VLA, 100_000, {0: 9.990010e-8, 1: 1.998002e-7, 999: 9.990010e-5, 1000: 9.973294e-5, 15_000: 5.125e-5}),
    (VLA, 100_000, {30_000: 2.5e-6, 70_000: 2.5e-6}),
    (VLA, 3000, {0: 9.900990e-7, 1: 1.980198e-6, 100: 9.973294e-5, 1500: 5.125e-5, 3000: 2.5e-6}),
    (
        DiffuserSchedulerConfig(num_warmup_steps=500),
        10_000,
        {0: 0.0, 1: 2e-7, 250: 5e-5, 500: 1e-4, 5000: 5.412897e-5, 9999: 2.733962e-12},
    ),
    (
        VQBeTSchedulerConfig(num_warmup_steps=500, num_vqvae_training_steps=20_000),
        100_000,
        {19_999: 1e-4, 20_000: 0.0, 20_250: 5e-5, 20_500: 1e-4, 60_000: 6.590058e-5},
    ),
]


def optimizer(lr=1.0):
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def config_of(case):
    kind, options, total = SCHEDULES[case]
    return SchedulerConfig.get_choice_class(kind)(**options), total


@pytest.mark.parametrize("case", SCHEDULES)
def test_factors_are_lerobots(case):
    factor = learning_rate_factor(*config_of(case))
    assert [factor(step) for step in STEPS] == pytest.approx(GOLDENS[case]["factors"], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("case", SCHEDULES)
def test_states_are_lerobots(case):
    config, total = config_of(case)
    target = optimizer()
    schedule = build_schedule(config, target, total)
    target.step()
    schedule.step()
    state, expected = json.loads(json.dumps(schedule.state_dict())), GOLDENS[case]["state"]
    assert list(state) == list(expected)
    assert state.pop("_last_lr") == pytest.approx(expected["_last_lr"])
    assert state == {key: value for key, value in expected.items() if key != "_last_lr"}


@pytest.mark.parametrize(("config", "total", "rates"), REFERENCE)
def test_reference_values(config, total, rates):
    factor = learning_rate_factor(config, total)
    for step, rate in rates.items():
        assert 1e-4 * factor(step) == pytest.approx(rate, rel=1e-6, abs=1e-18), step


def test_the_optimizers_own_rates_are_scaled_and_the_schedule_moves_once_per_step():
    group = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    target = torch.optim.Adam([{"params": [group[0]]}, {"params": [group[1]], "lr": 0.5}], lr=1.0)
    schedule = build_schedule(DiffuserSchedulerConfig(num_warmup_steps=4), target, 10)
    seen = []
    for _ in range(3):
        seen.append([g["lr"] for g in target.param_groups])
        target.step()
        schedule.step()
    assert seen == [[0.0, 0.0], [0.25, 0.125], [0.5, 0.25]]


def test_no_schedule_is_no_schedule():
    assert build_schedules(None, {"main": optimizer()}, 10) == {}
    assert list(build_schedules(VLA, {"actor": optimizer(), "critic": optimizer()}, 10)) == ["actor", "critic"]


def test_a_plugins_config_builds_itself():
    class Foreign:
        def build(self, target, num_training_steps):
            return torch.optim.lr_scheduler.LambdaLR(target, lambda step: num_training_steps)

    target = optimizer()
    build_schedule(Foreign(), target, 7)
    assert target.param_groups[0]["lr"] == 7.0


def test_names_of_the_diffusers_library():
    with pytest.raises(ConfigError, match="num_warmup_steps"):
        build_schedule(DiffuserSchedulerConfig(), optimizer(), 10)
    with pytest.raises(ConfigError, match=r"zigzag"):
        build_schedule(DiffuserSchedulerConfig(num_warmup_steps=1, name="zigzag"), optimizer(), 10)
