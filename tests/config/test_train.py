"""Checks across sections, and what is derived from several of them."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.config.dataset import DatasetConfig, sample_order
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.env import ReachEnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.config.job import JobConfig, is_remote
from lerobot_ray.config.optim import AdamConfig, ConstantWithWarmupSchedulerConfig
from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.config.ray import RayConfig
from lerobot_ray.config.train import (
    TrainConfig,
    accumulation_steps,
    default_output_dir,
    global_batch,
    micro_batch,
    pushes_to_hub,
    run_name,
)
from lerobot_ray.config.weighting import SampleWeightingConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.diffusion.config import DiffusionConfig


def run(*, policy=None, dataset=None, **settings) -> TrainConfig:
    return TrainConfig(dataset=dataset or DatasetConfig("user/data"), policy=policy or ACTConfig(), **settings)


def pretrained() -> ACTConfig:
    return ACTConfig(pretrained_path="base")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1."),
        ({"steps": 0}, "steps=0 must be at least 1."),
        ({"log_freq": 0}, "log_freq=0 must be at least 1."),
        ({"eval_steps": -1}, "eval_steps=-1 is negative"),
        ({"num_workers": -1}, "num_workers=-1 is negative; null means automatic."),
        ({"seed": -1}, "seed=-1 is negative."),
        ({"tolerance_s": 0.0}, "tolerance_s=0 must be more than 0."),
        ({"keep_last": 0}, "keep_last=0 must be at least 1, or null."),
        ({"global_batch_size": 0}, "global_batch_size=0 must be at least 1, or null."),
        ({"eval_steps": 5}, "eval_steps=5, but no episodes are held out. Add --dataset.eval_split=0.1"),
        ({"rename_map": {"a": "b"}}, "the policy is a fresh one. Add --policy.path="),
        ({"peft": PeftConfig()}, "on a fresh one it would adapt random weights. Add --policy.path="),
        (
            {"policy": ACTConfig(use_peft=True)},
            "policy.use_peft says that weights are an adapter's. Add --policy.path=",
        ),
        ({"save_checkpoint_to_hub": True}, "save_checkpoint_to_hub needs a repository. Add --policy.repo_id="),
        ({"use_policy_training_preset": False}, "needs an optimizer. Add --optimizer.type=adamw."),
        (
            {"policy": DiffusionConfig(), "sample_weighting": SampleWeightingConfig()},
            "measures progress over a policy's chunk_size, which diffusion has not.",
        ),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        run(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": DatasetConfig("a", eval_split=0.1), "eval_steps": 5},
        {"policy": pretrained(), "rename_map": {"a": "b"}},
        {"policy": pretrained(), "peft": PeftConfig()},
        {"checkpoint_path": Path("c"), "peft": PeftConfig()},
        {"policy": ACTConfig(use_peft=True, pretrained_path="adapter")},
        {"policy": ACTConfig(repo_id="u/p"), "save_checkpoint_to_hub": True},
        {"use_policy_training_preset": False, "optimizer": AdamConfig()},
        {
            "use_policy_training_preset": False,
            "optimizer": AdamConfig(),
            "scheduler": ConstantWithWarmupSchedulerConfig(),
        },
        {"sample_weighting": SampleWeightingConfig()},
        {"policy": DiffusionConfig(), "sample_weighting": SampleWeightingConfig(type="uniform")},
        {"save_freq": 0, "env_eval_freq": -1},
    ],
)
def test_accepted(settings):
    run(**settings)


def test_a_policy_is_needed():
    with pytest.raises(ConfigError, match="no policy"):
        TrainConfig(dataset=DatasetConfig("a"))


def test_accumulation_is_said_once():
    accumulating = replace(
        run().accelerator, gradient_accumulation=replace(run().accelerator.gradient_accumulation, steps=2)
    )
    assert global_batch(run(accelerator=accumulating), 4) == 8 * 4 * 2
    with pytest.raises(ConfigError, match="global_batch_size already decides"):
        run(accelerator=accumulating, global_batch_size=64)


@given(batch_size=st.integers(1, 64), share=st.integers(1, 256), world_size=st.integers(1, 16))
def test_a_kept_global_batch_is_shared_out_whole(batch_size, share, world_size):
    """The same samples feed a step whatever the number of workers: equal parts, none larger than batch_size."""
    config = run(batch_size=batch_size, global_batch_size=share * world_size)
    micro, steps = micro_batch(config, world_size), accumulation_steps(config, world_size)
    assert micro * steps * world_size == share * world_size == global_batch(config, world_size)
    assert micro <= batch_size


@given(batch_size=st.integers(1, 64), world_size=st.integers(1, 16))
def test_without_it_the_global_batch_grows_with_the_workers(batch_size, world_size):
    config = run(batch_size=batch_size)
    assert global_batch(config, world_size) == batch_size * world_size
    assert (micro_batch(config, world_size), accumulation_steps(config, world_size)) == (batch_size, 1)


def test_a_global_batch_that_does_not_divide():
    with pytest.raises(ConfigError, match=r"shared out evenly over 3 workers. Try 66 or 63"):
        global_batch(run(global_batch_size=64), 3)
    with pytest.raises(ConfigError, match=r"Try 3\.$"):
        global_batch(run(global_batch_size=2), 3)


def test_pushing_needs_a_repository():
    assert not pushes_to_hub(run())
    assert pushes_to_hub(run(policy=ACTConfig(repo_id="u/p")))
    assert not pushes_to_hub(run(policy=ACTConfig(repo_id="u/p", push_to_hub=False)))


def test_names():
    assert run_name(run()) == "act"
    assert run_name(run(env=ReachEnvConfig())) == "reach_act"
    assert run_name(run(job_name="mine")) == "mine"
    now = datetime(2026, 3, 4, 5, 6, 7)
    assert default_output_dir(run(), now) == Path("outputs/train/2026-03-04/05-06-07_act")


def test_a_config_travels_to_workers():
    config = run(policy=pretrained(), peft=PeftConfig(), env=ReachEnvConfig(), optimizer=AdamConfig())
    assert pickle.loads(pickle.dumps(config)) == config


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        run().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DatasetConfig(""), "dataset.repo_id is empty."),
        (lambda: DatasetConfig("a", repo_type="bucket"), "dataset.repo_type=bucket is not read here"),
        (lambda: DatasetConfig("a", episodes=[1, -2]), "dataset.episodes has -2; episodes are counted from 0."),
        (lambda: DatasetConfig("a", episodes=[1, 2, 1]), "dataset.episodes names episode 1 twice."),
        (lambda: DatasetConfig("a", exclude_episodes=[3, 3]), "dataset.exclude_episodes names episode 3 twice."),
        (lambda: DatasetConfig("a", episodes=[]), "dataset.episodes is an empty list"),
        (lambda: DatasetConfig("a", eval_split=1.0), "dataset.eval_split=1 is not in [0, 1)."),
        (lambda: DatasetConfig("a", eval_split=float("nan")), "dataset.eval_split=nan is not in [0, 1)."),
        (lambda: DatasetConfig("a", shard_frames=0), "dataset.shard_frames=0 must be at least 1."),
        (lambda: DatasetConfig("a", cache_gb=0.0), "dataset.cache_gb=0 must be more than 0."),
        (lambda: EvalConfig(n_episodes=0), "eval.n_episodes=0 must be at least 1."),
        (lambda: EvalConfig(recording_repo_id="u/r"), "but nothing is recorded. Add --eval.recording=true."),
        (lambda: EmaConfig(decay=1.5), "ema.decay=1.5 is not between 0 and 1."),
        (lambda: EmaConfig(min_decay=0.9, max_decay=0.5), "ema.min_decay=0.9 is above ema.max_decay=0.5."),
        (lambda: EmaConfig(decay=0.9, max_decay=0.99), "ema.decay fixes the decay, so ema.max_decay has no effect."),
        (lambda: EmaConfig(power=0.0), "ema.power=0 must be more than 0."),
        (lambda: PeftConfig(r=0), "peft.r=0 must be at least 1."),
        (
            lambda: PeftConfig(method_type="IA3", init_type="x"),
            "peft.init_type=x has no meaning for peft.method_type=IA3",
        ),
        (lambda: RayConfig(num_workers=0), "ray.num_workers=0 must be at least 1, or null for automatic."),
        (lambda: RayConfig(num_workers=2, min_workers=3), "ray.min_workers=3 is more than ray.num_workers=2."),
        (lambda: RayConfig(max_failures=-2), "ray.max_failures=-2 must be 0 or more, or -1 for no limit."),
        (lambda: RayConfig(resources_per_worker={"GPU": -1}), "ray.resources_per_worker asks for -1 GPU."),
        (lambda: RayConfig(resources_per_worker={"GPU": 1}, use_gpu=False), "but ray.use_gpu=false. Leave one"),
        (lambda: AdamConfig(lr=-1e-3), "optimizer.lr=-0.001 is negative."),
        (lambda: ConstantWithWarmupSchedulerConfig(-1), "scheduler.num_warmup_steps=-1 is negative."),
    ],
)
def test_a_section_checks_itself(build, message):
    with pytest.raises(ConfigError) as error:
        build()
    assert message in str(error.value)


def test_order_of_samples():
    assert sample_order(DatasetConfig("a")) == "frames"
    assert sample_order(DatasetConfig("a", streaming=True)) == "shards"
    assert sample_order(DatasetConfig("a", streaming=True, order="lerobot")) == "lerobot"


def test_defaults_agree_with_the_orders_own():
    from lerobot_ray.data.shard_order import SHARD_FRAMES, WINDOW_SHARDS

    assert (DatasetConfig("a").shard_frames, DatasetConfig("a").window_shards) == (SHARD_FRAMES, WINDOW_SHARDS)


@pytest.mark.parametrize(("target", "remote"), [(None, False), ("local", False), ("ray", True), ("a10g-small", True)])
def test_remote(target, remote):
    assert is_remote(JobConfig(target=target)) is remote
