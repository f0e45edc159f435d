"""A policy goes from here to LeRobot and back: same numbers out of the same folder, on both sides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot_ray.checkpoint.optimizer import (
    load_optimizer_state,
    load_scheduler_state,
    save_optimizer_state,
    save_scheduler_state,
)
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.engine.optim import build_optimizers, load_portable_state, portable_state
from lerobot_ray.engine.schedule import build_schedules
from lerobot_ray.policies.config_file import read_config
from lerobot_ray.policies.registry import build_policy, policy_class_of
from lerobot_ray.processing import load_processors, processors_for_run
from tests.parity.peer import run_lerobot_train, run_peer

pytestmark = [pytest.mark.lerobot, pytest.mark.slow]

FRONT, STATE, ACTION = "observation.images.front", "observation.state", "action"
OPTIONS = {
    "act": {
        "chunk_size": 8,
        "n_action_steps": 2,
        "dim_model": 32,
        "n_heads": 2,
        "dim_feedforward": 64,
        "n_encoder_layers": 1,
        "use_vae": False,
        "dropout": 0.0,
        "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "horizon": 8,
        "n_action_steps": 2,
        "down_dims": (16, 32),
        "n_groups": 4,
        "diffusion_step_embed_dim": 16,
        "spatial_softmax_num_keypoints": 4,
        "num_train_timesteps": 10,
        "use_group_norm": True,
        "pretrained_backbone_weights": None,
        "scheduler_warmup_steps": 4,
    },
}
WINDOWS = {"act": (None, 8), "diffusion": (2, 8)}
"""Observation steps (None: no time axis) and action steps of a training batch."""

# The two interpreters have different versions of torch, whose convolutions differ in the last bits.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def stats():
    rng = np.random.default_rng(5)

    def of(*shape):
        low, high = rng.normal(size=shape) - 2, rng.normal(size=shape) + 2
        return {"mean": (low + high) / 2, "std": (high - low) / 3, "min": low, "max": high, "count": np.array([24])}

    return {FRONT: of(3, 1, 1), STATE: of(4), ACTION: of(4)}


def raw_batch(kind, size=3, seed=0):
    """A collated batch as it comes out of the data plane, before the preprocessor."""
    generator = torch.Generator().manual_seed(seed)
    observed, acted = WINDOWS[kind]
    window = () if observed is None else (observed,)
    return {
        FRONT: torch.rand(size, *window, 3, 64, 96, generator=generator),
        STATE: torch.randn(size, *window, 4, generator=generator) * 3,
        ACTION: torch.randn(size, acted, 4, generator=generator) * 2,
        "action_is_pad": torch.arange(size * acted).reshape(size, acted) % 5 == 4,
    }


def rollout(seed=1, steps=4):
    generator = torch.Generator().manual_seed(seed)
    return [
        {FRONT: torch.rand(3, 64, 96, generator=generator), STATE: torch.randn(4, generator=generator)}
        for _ in range(steps)
    ]


def save_inputs(path, batch, observations=()):
    tensors = {f"rollout/{t}/{key}": v for t, one in enumerate(observations) for key, v in one.items()}
    save_file({**batch, **tensors}, path)


def ours(folder, batch, observations):
    """What the peer's run_policy.py computes, with this package."""
    config = read_config(folder)
    policy = policy_class_of(type(config)).from_pretrained(folder)
    pre, post = load_processors(folder)
    ready = pre(batch)
    found = {f"pre/{key}": value for key, value in ready.items() if isinstance(value, torch.Tensor)}
    torch.manual_seed(0)
    with torch.no_grad():
        found["loss"] = policy.forward(ready)[0]
        policy.reset()
        torch.manual_seed(1)
        for t, observation in enumerate(observations):
            found[f"action/{t}"] = post(policy.select_action(pre(observation)))
    return found


def fresh(kind):
    config = PolicyConfig.get_choice_class(kind)(device="cpu", push_to_hub=False, **OPTIONS[kind])
    config.input_features = {
        FRONT: PolicyFeature(FeatureType.VISUAL, (3, 64, 96)),
        STATE: PolicyFeature(FeatureType.STATE, (4,)),
    }
    config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (4,))}
    torch.manual_seed(3)
    return config, build_policy(config)


def step(policy, optimizers, schedules, batch, seed):
    policy.train()
    torch.manual_seed(seed)
    loss = policy.forward(batch)[0]
    loss.backward()
    for name, optimizer in optimizers.items():
        optimizer.step()
        optimizer.zero_grad()
        if name in schedules:
            schedules[name].step()
    return loss.detach()


def save_checkpoint(root, policy, processors, optimizers, schedules):
    for part in (policy, *processors):
        part.save_pretrained(root / "pretrained_model")
    save_optimizer_state(portable_state(optimizers["main"]), root / "training_state")
    if schedules:
        save_scheduler_state(schedules["main"].state_dict(), root / "training_state")


def assert_same(found, expected, *, exact=()):
    assert set(found) == set(expected)
    for key, value in expected.items():
        if key.startswith("parameter/"):
            assert_stepped_alike(key, found[key].detach(), value, float(expected["lr"].max()))
            continue
        terms = {"rtol": 0, "atol": 0} if key.startswith(exact) else CLOSE
        torch.testing.assert_close(found[key], value, msg=lambda text, key=key: f"{key}: {text}", **terms)


def assert_stepped_alike(key, found, expected, lr):
    """Adam divides by the size of the gradient, so where that is rounding error (a key's bias, whose true gradient is
    zero) the step is as well, by up to a learning rate. Had a moment been lost, most elements were off by about one.
    """
    off = (found - expected).abs() / lr
    assert float(off.max()) <= 2, f"{key}: off by {float(off.max()):g} learning rates"
    assert float(off.median()) <= 0.01, f"{key}: off by {float(off.median()):g} learning rates in the median"


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_folder_written_here_gives_the_same_actions_there(kind, tmp_path):
    folder = tmp_path / "policy"
    config, policy = fresh(kind)
    for part in (policy, *processors_for_run(config, stats())):
        part.save_pretrained(folder)
    save_inputs(tmp_path / "batch.safetensors", raw_batch(kind), rollout())
    run_peer("run_policy.py", folder, tmp_path / "batch.safetensors", tmp_path / "theirs.safetensors")
    theirs = load_file(tmp_path / "theirs.safetensors")
    assert theirs["action/3"].shape == (1, 4)
    assert_same(ours(folder, raw_batch(kind), rollout()), theirs, exact=("pre/",))


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_checkpoint_written_here_continues_there(kind, tmp_path):
    config, policy = fresh(kind)
    processors = processors_for_run(config, stats())
    optimizers = build_optimizers(config.get_optimizer_preset(), policy.get_optim_params())
    schedules = build_schedules(config.get_scheduler_preset(), optimizers, 10)
    for seed in range(2):
        step(policy, optimizers, schedules, processors[0](raw_batch(kind, seed=seed)), seed=10 + seed)
    save_checkpoint(tmp_path, policy, processors, optimizers, schedules)

    save_inputs(tmp_path / "batch.safetensors", raw_batch(kind, seed=7))
    run_peer("continue_training.py", tmp_path, tmp_path / "batch.safetensors", tmp_path / "theirs.safetensors")
    found = {"loss": step(policy, optimizers, schedules, processors[0](raw_batch(kind, seed=7)), seed=0)}
    found |= {f"parameter/{name}": value for name, value in policy.named_parameters()}
    rates = [group["lr"] for group in optimizers["main"].param_groups]
    found["lr"] = torch.tensor(rates, dtype=torch.float64)
    assert_same(found, load_file(tmp_path / "theirs.safetensors"))


@pytest.fixture(scope="module", params=OPTIONS)
def trained_there(request, tmp_path_factory):
    """(type, checkpoint) of two steps of lerobot-train on a dataset that LeRobot wrote."""
    root = tmp_path_factory.mktemp(request.param)
    run_peer("make_dataset.py", root / "dataset")
    options = {f"policy__{key}": _flag(value) for key, value in OPTIONS[request.param].items()}
    run_lerobot_train(
        dataset__repo_id="local/tiny",
        dataset__root=root / "dataset",
        policy__type=request.param,
        policy__device="cpu",
        policy__push_to_hub="false",
        batch_size=4,
        steps=2,
        save_freq=2,
        num_workers=0,
        wandb__enable="false",
        output_dir=root / "run",
        **options,
    )
    return request.param, root / "run" / "checkpoints" / "000002"


def _flag(value):
    if isinstance(value, tuple):
        return str(list(value))
    return "null" if value is None else str(value).lower()


def test_a_policy_trained_there_gives_the_same_loss_and_actions_here(trained_there, tmp_path):
    kind, checkpoint = trained_there
    folder = checkpoint / "pretrained_model"
    save_inputs(tmp_path / "batch.safetensors", raw_batch(kind), rollout())
    run_peer("run_policy.py", folder, tmp_path / "batch.safetensors", tmp_path / "theirs.safetensors")
    assert_same(ours(folder, raw_batch(kind), rollout()), load_file(tmp_path / "theirs.safetensors"), exact=("pre/",))


def test_a_run_begun_there_continues_here_as_it_would_there(trained_there, tmp_path):
    kind, checkpoint = trained_there
    save_inputs(tmp_path / "batch.safetensors", raw_batch(kind, seed=7))
    run_peer("continue_training.py", checkpoint, tmp_path / "batch.safetensors", tmp_path / "theirs.safetensors")

    config = read_config(checkpoint / "pretrained_model")
    policy = policy_class_of(type(config)).from_pretrained(checkpoint / "pretrained_model", strict=True)
    pre, _ = processors_for_run(config, None, checkpoint / "pretrained_model", resume=True)
    optimizers = build_optimizers(config.get_optimizer_preset(), policy.get_optim_params())
    schedules = build_schedules(config.get_scheduler_preset(), optimizers, 10)
    state = load_optimizer_state(optimizers["main"].state_dict(), checkpoint / "training_state")
    load_portable_state(optimizers["main"], state)
    if schedules:
        schedules["main"].load_state_dict(load_scheduler_state(checkpoint / "training_state"))
    found = {"loss": step(policy, optimizers, schedules, pre(raw_batch(kind, seed=7)), seed=0)}
    found |= {f"parameter/{name}": value for name, value in policy.named_parameters()}
    rates = [group["lr"] for group in optimizers["main"].param_groups]
    found["lr"] = torch.tensor(rates, dtype=torch.float64)
    assert_same(found, load_file(tmp_path / "theirs.safetensors"))


def test_a_folder_from_there_is_written_back_as_it_was(trained_there, tmp_path):
    _, checkpoint = trained_there
    folder = checkpoint / "pretrained_model"
    config = read_config(folder)
    policy = policy_class_of(type(config)).from_pretrained(folder)
    for part in (policy, *load_processors(folder)):
        part.save_pretrained(tmp_path)
    for path in Path(folder).glob("policy_*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert (tmp_path / "config.json").read_text() == (folder / "config.json").read_text()
    saved, again = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(again)
    assert all(torch.equal(value, again[key]) for key, value in saved.items())
