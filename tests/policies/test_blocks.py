"""Which parts are sharded and recomputed."""

import pytest
from torch import nn

from lerobot_ray.policies.blocks import checkpoint_blocks, fsdp_wrap_units
from tests.policies.build import build
from tests.policies.cases import CASES


def kinds(policy, names):
    return {type(policy.get_submodule(name)).__name__ for name in names}


def share(policy, names):
    """Of all parameters, how many are in these units."""
    inside = sum(p.numel() for name in names for p in policy.get_submodule(name).parameters())
    return inside / sum(p.numel() for p in policy.parameters())


def test_act():
    policy = build(CASES["act_vae_two_cameras"])
    units = fsdp_wrap_units(policy)
    assert kinds(policy, units) == {"EncoderLayer", "DecoderLayer", "BasicBlock"}
    assert "model.vae_encoder.layers.0" in units
    assert share(policy, units) > 0.98
    assert checkpoint_blocks(policy) == units


def test_diffusion_does_not_recompute_what_counts_batches():
    policy = build(CASES["diffusion_shared"])
    units = fsdp_wrap_units(policy)
    assert kinds(policy, units) == {"ResidualBlock", "BasicBlock"}
    assert share(policy, units) > 0.98
    assert kinds(policy, checkpoint_blocks(policy)) == {"ResidualBlock"}
    grouped = build(CASES["diffusion_resize_groups"])
    assert kinds(grouped, checkpoint_blocks(grouped)) == {"ResidualBlock", "BasicBlock"}


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2)])
        self.norm = nn.LayerNorm(2)


class Stranger(nn.Module):
    """Declares nothing, like most of LeRobot's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.levels = nn.ModuleList([nn.ModuleList([Layer(), Layer()]), nn.ModuleList([Layer(), Layer()])])
        self.single = nn.ModuleList([Layer()])


def test_repeated_blocks_are_found_in_strangers():
    assert fsdp_wrap_units(Stranger()) == ["levels.0.0", "levels.0.1", "levels.1.0", "levels.1.1"]
    assert checkpoint_blocks(Stranger()) == fsdp_wrap_units(Stranger())


@pytest.mark.parametrize("attribute", ["_fsdp_wrap_modules", "_no_split_modules", "fsdp_wrap_classes"])
def test_declarations_of_others_are_heard(attribute):
    policy = Stranger()
    setattr(policy, attribute, ["Layer"])
    assert fsdp_wrap_units(policy) == ["levels.0.0", "levels.0.1", "levels.1.0", "levels.1.1", "single.0"]
