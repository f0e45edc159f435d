"""What a checkpoint folder holds: LeRobot's files with LeRobot's keys, ours beside them, no pickle, readable by all."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lerobot_ray.checkpoint.commit import verify
from lerobot_ray.checkpoint.snapshot import named_weights, take_snapshot
from lerobot_ray.checkpoint.tensors import HostCopies
from lerobot_ray.config.files import load_train_config
from lerobot_ray.config.optim import MultiAdamConfig
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.policies.config_file import read_config
from lerobot_ray.policies.registry import policy_class_of
from tests.checkpoint.runs import make_run

POLICY_FILES = {
    "config.json",
    "lerobot_ray.json",
    "model.safetensors",
    "policy_postprocessor.json",
    "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    "policy_preprocessor.json",
    "policy_preprocessor_step_3_normalizer_processor.safetensors",
    "train_config.json",
}
STATE_FILES = {
    "ema_state.json",
    "lerobot_ray_state.json",
    "optimizer_param_groups.json",
    "optimizer_state.safetensors",
    "rng_state.safetensors",
    "scheduler_state.json",
    "training_step.json",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = make_run(camera=True)
    run.train(2)
    return run, run.save(tmp_path_factory.mktemp("run"))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_files_are_lerobots_and_ours_beside_them(saved):
    _, checkpoint = saved
    assert names(checkpoint) == {"pretrained_model", "pretrained_model_ema", "training_state", "manifest.json"}
    assert names(checkpoint / "pretrained_model") == POLICY_FILES
    assert names(checkpoint / "pretrained_model_ema") == POLICY_FILES
    assert names(checkpoint / "training_state") == STATE_FILES
    verify(checkpoint)


def test_whoever_may_read_one_file_may_read_all(saved):
    _, checkpoint = saved
    modes = {path.stat().st_mode & 0o777 for path in checkpoint.rglob("*") if path.is_file()}
    assert len(modes) == 1, [oct(mode) for mode in modes]


def test_training_step_serves_both_versions_of_lerobot(saved):
    _, checkpoint = saved
    assert json.loads((checkpoint / "training_state" / "training_step.json").read_text()) == {
        "step": 2,
        "num_processes": 1,
        "dp_world_size": 1,
        "batch_size": 4,
        "grad_accum_steps": 1,
        "parallelism": {"dp_replicate": 1, "dp_shard": 1, "ring_degree": 1, "ulysses_degree": 1},
    }


def test_optimizer_entries_are_numbered_over_the_groups_and_choose_no_implementation(saved):
    run, checkpoint = saved
    groups = json.loads((checkpoint / "training_state" / "optimizer_param_groups.json").read_text())
    params = [parameter for group in run.learner.optimizers["main"].param_groups for parameter in group["params"]]
    assert [number for group in groups for number in group["params"]] == list(range(len(params)))
    assert all(group["fused"] is None and group["foreach"] is None and "initial_lr" in group for group in groups)
    tensors = load_file(checkpoint / "training_state" / "optimizer_state.safetensors")
    for number, parameter in enumerate(params):
        assert tensors[f"state/{number}/exp_avg"].shape == parameter.shape
        assert tensors[f"state/{number}/step"].shape == ()


def test_config_and_policy_come_back(saved):
    run, checkpoint = saved
    folder = checkpoint / "pretrained_model"
    assert load_train_config(folder) == run.config
    policy = policy_class_of(type(read_config(folder))).from_pretrained(folder, strict=True)
    assert all(torch.equal(value, run.policy.state_dict()[name]) for name, value in policy.state_dict().items())


def test_averaged_weights_are_a_policy_of_their_own(saved):
    run, checkpoint = saved
    folder = checkpoint / "pretrained_model_ema"
    policy = policy_class_of(type(read_config(folder))).from_pretrained(folder, strict=True)
    shadow = run.learner.ema.shadow
    parameters = dict(policy.named_parameters())
    assert set(parameters) == set(shadow)
    assert all(torch.equal(parameters[name], value) for name, value in shadow.items())
    live = dict(run.policy.named_parameters())
    assert any(not torch.equal(live[name], value) for name, value in shadow.items())


def test_the_memory_of_a_snapshot_is_used_again():
    run, copies = make_run(), HostCopies(keeps=True)
    run.train(1)
    first = take_snapshot(**run.parts(), record=run.record(), rank=0, copies=copies)
    places = {name: value.data_ptr() for name, value in first.weights.items()}
    run.train(1)
    now = run.tensors()
    second = take_snapshot(**run.parts(), record=run.record(), rank=0, copies=copies)
    assert {name: value.data_ptr() for name, value in second.weights.items()} == places
    assert all(torch.equal(value, now[f"weight/{name}"]) for name, value in second.weights.items())
    assert torch.equal(second.optimizers["main"]["state"][0]["exp_avg"], now["main/0/exp_avg"])


def test_a_snapshot_stays_as_it_was_while_training_goes_on(tmp_path):
    run = make_run()
    run.train(1)
    before, snapshot = run.tensors(), run.snapshot()
    run.train(2)
    for name, value in snapshot.weights.items():
        assert torch.equal(value, before[f"weight/{name}"])
    assert torch.equal(snapshot.optimizers["main"]["state"][0]["exp_avg"], before["main/0/exp_avg"])
    assert snapshot.schedules["main"]["last_epoch"] == 1
    assert snapshot.num_bytes > 3 * sum(value.nbytes for value in snapshot.weights.values())


def test_other_ranks_keep_nothing():
    run = make_run()
    run.rank = 1
    assert run.snapshot() is None


def test_several_optimizers_have_a_folder_each(tmp_path):
    run = make_run(with_ema=False)
    parameters = list(run.policy.parameters())
    run.learner.optimizers = build_optimizers(MultiAdamConfig(), {"actor": parameters[:2], "critic": parameters[2:5]})
    run.learner.schedules = {}
    run.train(1)
    state = run.save(tmp_path) / "training_state"
    assert (
        names(state / "actor")
        == names(state / "critic")
        == {
            "optimizer_state.safetensors",
            "optimizer_param_groups.json",
        }
    )
    assert "optimizer_state.safetensors" not in names(state)


def test_of_shared_tensors_one_name_is_kept_and_compiled_names_are_plain():
    model = torch.nn.ModuleDict({"b": torch.nn.Linear(2, 2), "a": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    assert set(named_weights(model)) == {"a.weight", "a.bias", "b.bias"}
    assert set(named_weights(torch.compile(model, backend="eager"))) == {"a.weight", "a.bias", "b.bias"}
