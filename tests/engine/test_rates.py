"""Going on from another run's state with settings of one's own: weights and moments come along, rates do not."""

from __future__ import annotations

import torch

from lerobot_ray.config.optim import AdamWConfig, ConstantWithWarmupSchedulerConfig
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.engine.rates import rates_of, set_rates
from lerobot_ray.engine.schedule import build_schedules


def learner(lr: float, weight_decay: float = 0.0) -> Learner:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    optimizers = build_optimizers(AdamWConfig(lr=lr, weight_decay=weight_decay), list(network.parameters()))
    schedules = build_schedules(ConstantWithWarmupSchedulerConfig(num_warmup_steps=8), optimizers, 20)
    return Learner(policy=network, forward=network, optimizers=optimizers, schedules=schedules)


def trained(one: Learner, steps: int) -> Learner:
    for _ in range(steps):
        one.policy(torch.ones(2, 3)).sum().backward()
        one.optimizers["main"].step()
        one.schedules["main"].step()
        one.optimizers["main"].zero_grad()
    return one


def test_own_rates_and_the_others_moments():
    donor, taker = trained(learner(1e-3), 4), learner(5e-2, weight_decay=0.1)
    own = rates_of(taker)
    taker.optimizers["main"].load_state_dict(donor.optimizers["main"].state_dict())
    taker.schedules["main"].load_state_dict(donor.schedules["main"].state_dict())
    assert taker.optimizers["main"].param_groups[0]["lr"] == 1e-3 * 4 / 8, "loading brings the donor's rate"
    set_rates(taker, own)
    group = taker.optimizers["main"].param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (5e-2 * 4 / 8, 0.1)
    moments = [state["exp_avg"] for state in taker.optimizers["main"].state.values()]
    expected = [state["exp_avg"] for state in donor.optimizers["main"].state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, expected, strict=True))
    trained(taker, 1)
    assert group["lr"] == 5e-2 * 5 / 8, "the schedule goes on from its place with the new rate"
