"""Copies, shards and copies of shards train like one process: the same weights, to rounding, for the same batches."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp

from lerobot_ray.config.parallel import (
    AcceleratorConfig,
    ActivationCheckpointingConfig,
    CompileConfig,
    FsdpConfig,
    ParallelismConfig,
)
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.engine.host import LocalHost
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.loop import LoopSettings, train
from lerobot_ray.engine.parallel import place, wrap_units
from lerobot_ray.engine.state import TrainState

G, STEPS = 8, 4


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(16, 16)
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, x):
        return x + self.norm(torch.relu(self.inner(x)))


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(4, 16)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(3))
        self.head = torch.nn.Linear(16, 1)

    def forward(self, batch):
        x = self.first(batch["x"])
        for block in self.blocks:
            x = block(x)
        loss = (self.head(x)[:, 0] - batch["y"]).square().mean()
        return loss, {}


def whole_batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS * G, 4, generator=generator)
    return x, x.prod(dim=1)


def my_share(rank: int, world: int, micro_batch: int):
    x, y = whole_batches()
    share = G // world
    for step in range(STEPS):
        for part in range(share // micro_batch):
            start = step * G + rank * share + part * micro_batch
            yield {"x": x[start : start + micro_batch], "y": y[start : start + micro_batch]}


def trained_weights(rank: int, world: int, parallelism: ParallelismConfig, accelerator: AcceleratorConfig, micro_batch):
    policy = Toy()
    placed = place(
        policy, device=torch.device("cpu"), world_size=world, parallelism=parallelism, accelerator=accelerator
    )
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    learner = Learner(
        policy=policy,
        forward=placed.forward,
        optimizers={"main": optimizer},
        schedules={},
        grad_clip_norm=0.5,
        sync_gradients=placed.sync_gradients,
    )
    settings = LoopSettings(steps=STEPS, global_batch=G, accumulation_steps=G // world // micro_batch)
    train(learner, my_share(rank, world, micro_batch), TrainState(), settings, LocalHost(rank=rank, world_size=world))
    if placed.is_sharded:
        local = sum(p.to_local().numel() for p in policy.parameters())
        assert local <= sum(p.numel() for p in policy.parameters()) * 0.75
    parts = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in policy.parameters()]
    return torch.cat([part.detach().flatten() for part in parts])


def _worker(rank, world, port, parallelism, accelerator, micro_batch, path):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    weights = trained_weights(rank, world, parallelism, accelerator, micro_batch)
    if rank == 0:
        torch.save(weights, path)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("world", "parallelism", "micro_batch"),
    [
        (4, ParallelismConfig(), 1),
        (2, ParallelismConfig(dp_shard=-1), 4),
        (4, ParallelismConfig(dp_replicate=2, dp_shard=2), 1),
    ],
    ids=["ddp4-accumulating", "fsdp2", "hybrid2x2-accumulating"],
)
def test_any_way_to_spread_it_gives_the_weights_of_one_process(tmp_path, world, parallelism, micro_batch):
    expected = trained_weights(0, 1, ParallelismConfig(), AcceleratorConfig(), G)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = str(tmp_path / "weights.pt")
    mp.spawn(_worker, (world, port, parallelism, AcceleratorConfig(), micro_batch, path), nprocs=world)
    assert torch.allclose(torch.load(path), expected, atol=1e-6)


@pytest.mark.parametrize(
    "accelerator",
    [
        AcceleratorConfig(activation_checkpointing=ActivationCheckpointingConfig(mode="full")),
        AcceleratorConfig(compile=CompileConfig(enabled=True, backend="aot_eager")),
        AcceleratorConfig(compile=CompileConfig(enabled=True, backend="aot_eager", regional=False)),
    ],
    ids=["recompute", "compile-blocks", "compile-whole"],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it compiles a block in the middle
def test_saving_memory_or_time_changes_no_result_and_no_name(accelerator):
    expected = trained_weights(0, 1, ParallelismConfig(), AcceleratorConfig(), G)
    assert torch.allclose(trained_weights(0, 1, ParallelismConfig(), accelerator, G), expected, atol=1e-6)
    policy = Toy()
    names = set(policy.state_dict())
    place(policy, device=torch.device("cpu"), world_size=1, parallelism=ParallelismConfig(), accelerator=accelerator)
    assert set(policy.state_dict()) == names


def test_units_come_from_the_policy_the_flags_or_a_clear_refusal():
    policy, fsdp = Toy(), FsdpConfig()
    assert wrap_units(policy, fsdp) == ["blocks.0", "blocks.1", "blocks.2"]
    assert wrap_units(policy, replace(fsdp, wrap_modules=["LayerNorm"])) == [f"blocks.{i}.norm" for i in range(3)]
    assert wrap_units(policy, replace(fsdp, min_num_params=300)) == ["blocks.0", "blocks.1", "blocks.2"]
    with pytest.raises(ConfigError, match="wrap_modules"):
        wrap_units(policy, replace(fsdp, wrap_modules=["NoSuchBlock"]))
    with pytest.raises(ConfigError, match="not fit 3 workers"):
        place(
            policy,
            device=torch.device("cpu"),
            world_size=3,
            parallelism=ParallelismConfig(dp_shard=2),
            accelerator=AcceleratorConfig(),
        )
