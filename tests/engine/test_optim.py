"""Optimizers: LeRobot's groups and numbers, fused where that exists, states that travel both ways."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from lerobot_ray.config.optim import (
    AdamConfig,
    AdamWConfig,
    MultiAdamConfig,
    OptimizerConfig,
    SGDConfig,
    XVLAAdamWConfig,
)
from lerobot_ray.core.errors import CheckpointError, ConfigError, PolicyError
from lerobot_ray.engine.optim import build_optimizer, build_optimizers, load_portable_state, portable_state
from tests.engine.optim_cases import OPTIMIZERS, model, named_groups, train

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "optim.json").read_text())


def build(case, **options):
    kind, terms, form = OPTIMIZERS[case]
    network = model()
    config = OptimizerConfig.get_choice_class(kind)(**terms)
    return network, build_optimizers(config, named_groups(network, form), **options)


def plain(groups):
    return json.loads(json.dumps(groups))


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_groups_are_saved_as_lerobot_saves_them(case):
    _, optimizers = build(case)
    expected = GOLDENS["optimizers"][case]["groups"]
    assert list(optimizers) == list(expected)
    for name, optimizer in optimizers.items():
        groups = portable_state(optimizer)["param_groups"]
        assert [set(group) for group in groups] == [set(group) for group in expected[name]]
        assert plain(groups) == expected[name]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_steps_are_lerobots(case, fused):
    network, optimizers = build(case, fused=fused)
    train(network, list(optimizers.values()))
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    expected = torch.tensor(GOLDENS["optimizers"][case]["weights"])
    torch.testing.assert_close(weights, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_the_fused_implementation_is_taken_where_torch_has_it(case):
    for optimizer in build(case)[1].values():
        assert all(group["fused"] is True for group in optimizer.param_groups)


@pytest.mark.parametrize("config", [AdamConfig(), AdamWConfig(), SGDConfig()])
def test_integer_or_absent_parameters_are_not_fused(config):
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    assert not build_optimizer(config, [parameter]).param_groups[0]["fused"]


@pytest.mark.parametrize("case", ["adam", "adamw", "sgd"])
def test_a_saved_state_continues_bit_for_bit_and_stays_fused(case):
    unbroken, (one,) = (lambda n, o: (n, o.values()))(*build(case))
    train(unbroken, [one], 4)
    first, (two,) = (lambda n, o: (n, o.values()))(*build(case))
    train(first, [two], 2)
    state = copy.deepcopy(portable_state(two))
    state["param_groups"] = plain(state["param_groups"])  # as a file gives it back
    again, (three,) = (lambda n, o: (n, o.values()))(*build(case))
    again.load_state_dict(first.state_dict())
    load_portable_state(three, state)
    assert all(group["fused"] is True for group in three.param_groups)
    for network, optimizer in ((again, three), (first, two)):
        for step in range(2, 4):
            network(torch.tensor([[1.0, -2.0], [0.5, step / 10]])).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b, c in zip(again.parameters(), first.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_an_entry_the_writer_did_not_know_keeps_its_fresh_value():
    _, optimizers = build("adamw")
    state = portable_state(optimizers["main"])
    for group in state["param_groups"]:
        del group["decoupled_weight_decay"]
        group["lr"] = 0.5
    load_portable_state(optimizers["main"], state)
    assert [(g["decoupled_weight_decay"], g["lr"]) for g in optimizers["main"].param_groups] == [(True, 0.5)] * 2


def test_another_policys_state_is_refused():
    _, optimizers = build("adamw")
    with pytest.raises(CheckpointError, match=r"\[6\].*\[4, 2\]"):
        load_portable_state(optimizers["main"], portable_state(build("adam")[1]["main"]))


def test_a_frozen_policy_is_refused():
    with pytest.raises(PolicyError, match="no parameters to train"):
        build_optimizer(AdamConfig(), [])
    with pytest.raises(PolicyError, match="no parameters to train"):
        build_optimizer(AdamConfig(), [{"params": []}])


@pytest.mark.parametrize("config", [MultiAdamConfig(), XVLAAdamWConfig()])
def test_optimizers_by_name_need_names(config):
    with pytest.raises(PolicyError, match="returns a dict"):
        build_optimizers(config, list(model().parameters()))


def test_groups_that_do_not_exist():
    groups = named_groups(model(), "dict")
    with pytest.raises(ConfigError, match=r"acto.*actor"):
        build_optimizers(MultiAdamConfig(optimizer_groups={"acto": {}}), groups)
    with pytest.raises(ConfigError, match=r"speed.*betas"):
        build_optimizers(MultiAdamConfig(optimizer_groups={"actor": {"speed": 1}}), groups)


def test_a_plugins_config_builds_itself():
    class Foreign:
        def build(self, params):
            return torch.optim.SGD(params, lr=0.5)

    optimizers = build_optimizers(Foreign(), model().parameters())
    assert optimizers["main"].param_groups[0]["lr"] == 0.5


def test_a_step_with_its_gradient_clipped_stays_finite():
    """The goldens above would also pass with weights that are all NaN on both sides."""
    assert all(math.isfinite(w) for case in GOLDENS["optimizers"].values() for w in case["weights"])
