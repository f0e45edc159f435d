from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.config.parallel import (
    AcceleratorConfig,
    ContextParallelConfig,
    FsdpConfig,
    GradientAccumulationConfig,
    ParallelismConfig,
    autocast_precision,
    is_sharded,
    replicas_and_shards,
)
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.policies.act.config import ACTConfig


@pytest.mark.parametrize(
    ("replicate", "shard", "world_size", "layout"),
    [
        (1, 1, 1, (1, 1)),
        (1, 1, 8, (8, 1)),  # 1 follows the workers
        (8, 1, 8, (8, 1)),
        (1, 4, 8, (2, 4)),
        (2, 4, 8, (2, 4)),
        (1, -1, 8, (1, 8)),
        (2, -1, 8, (2, 4)),
        (1, -1, 1, (1, 1)),
    ],
)
def test_layout(replicate, shard, world_size, layout):
    assert replicas_and_shards(ParallelismConfig(replicate, shard), world_size) == layout


@pytest.mark.parametrize(
    ("replicate", "shard", "world_size"), [(1, 3, 8), (4, 1, 8), (3, -1, 8), (2, 2, 8), (1, 16, 8), (9, -1, 8)]
)
def test_a_layout_that_does_not_fit(replicate, shard, world_size):
    with pytest.raises(ConfigError, match=f"not fit {world_size} workers: copies times shards must be {world_size}"):
        replicas_and_shards(ParallelismConfig(replicate, shard), world_size)


@given(replicate=st.integers(1, 8), shard=st.integers(-1, 8).filter(bool), world_size=st.integers(1, 64))
def test_a_layout_uses_every_worker_or_is_refused(replicate, shard, world_size):
    try:
        replicas, shards = replicas_and_shards(ParallelismConfig(replicate, shard), world_size)
    except ConfigError:
        return
    assert replicas * shards == world_size
    assert replicate in (1, replicas)
    assert shard in (-1, shards)


def test_sharded():
    assert [is_sharded(ParallelismConfig(dp_shard=n)) for n in (1, 2, -1)] == [False, True, True]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ParallelismConfig(dp_replicate=0), "dp_replicate=0 must be at least 1."),
        (lambda: ParallelismConfig(dp_shard=0), "dp_shard=0 must be at least 1, or -1"),
        (lambda: ParallelismConfig(cfg_parallel=2), "cfg_parallel=2: only 1 is supported."),
        (lambda: ContextParallelConfig(ring_degree=2), "ring_degree=2: only 1 is supported."),
        (lambda: GradientAccumulationConfig(0), "gradient_accumulation.steps=0 must be at least 1."),
        (lambda: FsdpConfig(min_num_params=0), "min_num_params=0 must be at least 1."),
        (lambda: FsdpConfig(wrap_modules=["A"], min_num_params=5), "has both wrap_modules and min_num_params."),
    ],
)
def test_refused(build, message):
    with pytest.raises(ConfigError) as error:
        build()
    assert message in str(error.value)


class WithDtype:
    use_amp = True

    def __init__(self, dtype):
        self.dtype = dtype


@pytest.mark.parametrize(
    ("flag", "policy", "device", "precision"),
    [
        (None, ACTConfig(), "cuda", "no"),
        (None, ACTConfig(use_amp=True), "cuda", "fp16"),
        (None, ACTConfig(use_amp=True), "cuda:1", "fp16"),
        (None, ACTConfig(use_amp=True), "cpu", "bf16"),
        ("bf16", ACTConfig(), "cuda", "bf16"),
        ("no", ACTConfig(use_amp=True), "cuda", "no"),
        (None, WithDtype("bfloat16"), "cuda", "bf16"),
        (None, WithDtype("float16"), "cuda", "fp16"),
        (None, WithDtype("float32"), "cuda", "no"),
    ],
)
def test_precision(flag, policy, device, precision):
    assert autocast_precision(AcceleratorConfig(mixed_precision=flag), policy, device=device) == precision
