"""Weights files: what is written, what is refused, and what a refusal says."""

import logging

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.policies.weights import copy_weights, load_weights, read_weights, save_weights, weights_file


class Tied(nn.Module):
    """Two names for one tensor, a buffer, a view into a larger storage, and channels-last weights."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.register_buffer("part", torch.arange(10.0)[2:6])


def test_every_entry_comes_back_and_shared_tensors_are_stored_once(tmp_path):
    policy, other = Tied(), Tied()
    save_weights(policy.state_dict(), tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    assert set(policy.state_dict()) - set(stored) == {"head.weight"}
    assert stored["norm.num_batches_tracked"].dtype == torch.int64
    load_weights(other, tmp_path / "model.safetensors")
    for name, tensor in policy.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_a_file_with_foreign_metadata_and_both_names_loads(tmp_path):
    policy, other = Tied(), Tied()
    tensors = {name: tensor.clone().contiguous() for name, tensor in policy.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt", "x": "y"})
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(other.head.weight, policy.head.weight)


def test_half_precision_is_kept(tmp_path):
    save_weights(nn.Linear(2, 2).bfloat16().state_dict(), tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.get_tensor("weight").dtype == torch.bfloat16


def state(**changes):
    tensors = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict()
    tensors |= {name.replace("_", "."): value for name, value in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (state(**{"0_bias": None}), ["1 missing: 0.bias"]),
        (state(extra_weight=torch.ones(1)), ["1 unexpected: extra.weight"]),
        (
            state(**{"0_weight": torch.ones(3, 4)}),
            ["0.weight is 3×4 in the file, 3×2 in the policy", "features or sizes"],
        ),
        (state(**{"0_bias": None}) | {"normalize_inputs.buffer": torch.ones(1)}, ["migrate_policy_normalization"]),
    ],
)
def test_keys_and_shapes_that_differ_are_named(tensors, words):
    policy = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with pytest.raises(PolicyError) as caught:
        copy_weights(policy, tensors, source="model.safetensors")
    for word in ["model.safetensors does not fit Sequential", *words]:
        assert word in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items()), "nothing was copied"


def test_not_strict_logs_keys_but_refuses_shapes_and_strangers(caplog):
    policy = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with caplog.at_level(logging.WARNING):
        copy_weights(policy, state(**{"0_bias": None, "1_weight": torch.ones(1, 3)}), source="x", strict=False)
    assert "1 missing: 0.bias" in caplog.text
    assert torch.equal(policy[1].weight, torch.ones(1, 3))
    with pytest.raises(PolicyError, match=r"0\.bias is 7"):
        copy_weights(policy, state(**{"0_bias": torch.ones(7)}), source="x", strict=False)
    with pytest.raises(PolicyError, match="4 missing"):
        copy_weights(policy, {"a": torch.ones(1)}, source="x", strict=False)


def test_many_keys_are_cut_short():
    with pytest.raises(PolicyError, match=r"40 unexpected: k0, k1, k10, k11, k12, k13 and 34 more"):
        copy_weights(nn.Linear(1, 1), {f"k{i}": torch.ones(1) for i in sorted(range(40), key=str)}, source="x")


def test_compiled_parts_exchange_weights_with_plain_ones():
    plain, compiled = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"))
    assert list(compiled.state_dict()) == ["0._orig_mod.weight", "0._orig_mod.bias"]
    copy_weights(compiled, plain.state_dict(), source="x")
    assert torch.equal(compiled[0].weight, plain[0].weight)
    nn.init.zeros_(compiled[0].weight)
    copy_weights(plain, compiled.state_dict(), source="x")
    assert plain[0].weight.abs().sum() == 0


@pytest.mark.parametrize("name", ["pytorch_model.bin", "policy.pt", "last.ckpt"])
def test_pickles_are_refused_by_name(tmp_path, name):
    torch.save({"weight": torch.ones(1)}, tmp_path / name)
    with pytest.raises(PolicyError, match=f"{name} is a pickle"):
        weights_file(tmp_path)
    with pytest.raises(PolicyError, match=f"{name} is a pickle"):
        read_weights(tmp_path / name)


def test_a_pickle_under_another_name_is_not_opened(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(PolicyError, match=r"model\.safetensors is not a readable safetensors file"):
        read_weights(weights_file(tmp_path))


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(nn.Linear(30, 30).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PolicyError, match="not a readable safetensors file"):
        read_weights(path)


def test_a_folder_without_weights_says_what_it_holds(tmp_path):
    with pytest.raises(PolicyError, match="this one holds nothing"):
        weights_file(tmp_path)
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(PolicyError, match=r"It holds an adapter: set policy\.use_peft=true"):
        weights_file(tmp_path)
    with pytest.raises(PolicyError, match="There is no folder"):
        weights_file(tmp_path / "nowhere")
