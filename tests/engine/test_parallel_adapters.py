"""An adapter over a frozen base, on copies and on shards: the same weights as in one process."""

import os
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from lerobot_ray.checkpoint.commit import new_checkpoint
from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.checkpoint.load import load_training_state
from lerobot_ray.checkpoint.save import write_snapshot
from lerobot_ray.checkpoint.snapshot import take_snapshot
from lerobot_ray.checkpoint.state import RunRecord
from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.optim import AdamWConfig
from lerobot_ray.config.parallel import AcceleratorConfig, ParallelismConfig
from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.engine.ema import Ema
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.engine.parallel import place
from lerobot_ray.engine.step import backward, move
from lerobot_ray.policies.adapters.plan import build_adapted, plan_adapter
from lerobot_ray.policies.registry import build_policy
from lerobot_ray.processing import processors_for_run
from tests.policies.build import config_of
from tests.policies.cases import Case

CASE = Case(
    "act",
    {
        "chunk_size": 4,
        "n_action_steps": 4,
        "dim_model": 16,
        "n_heads": 2,
        "dim_feedforward": 32,
        "n_encoder_layers": 2,
        "n_vae_encoder_layers": 1,
        "latent_dim": 4,
        "dropout": 0.0,
        "pretrained_backbone_weights": None,
    },
    environment=5,
)
G, STEPS = 4, 3


def learner(base: str, world: int, parallelism: ParallelismConfig):
    config = config_of(CASE, pretrained_path=base)
    torch.manual_seed(0)
    policy = build_adapted(config, plan_adapter(config, PeftConfig(r=4)), loads_weights=True, device="cpu")
    placed = place(
        policy,
        device=torch.device("cpu"),
        world_size=world,
        parallelism=parallelism,
        accelerator=AcceleratorConfig(),
    )
    return Learner(
        policy=policy,
        forward=placed.forward,
        optimizers=build_optimizers(AdamWConfig(lr=1e-2, weight_decay=0.1), policy.get_optim_params()),
        schedules={},
        grad_clip_norm=1.0,
        ema=Ema(policy, EmaConfig(enable=True, decay=0.5)),
        sync_gradients=placed.sync_gradients,
    )


def train(own: Learner, rank: int, world: int, first: int = 0, steps: int = STEPS):
    own.policy.train()
    share = G // world
    for step in range(first, first + steps):
        torch.manual_seed(step)
        whole = CASE.batch(step, batch=G) | {"stream_index": torch.arange(G) + step * G}
        mine = {key: value[rank * share : (rank + 1) * share] for key, value in whole.items()}
        move(own, backward(own, [mine], count=1, device=torch.device("cpu")))


def snapshot(own: Learner, rank: int):
    record = RunRecord(step=STEPS, samples_seen=STEPS * G, seed=0, global_batch=G, world_size=1)
    return take_snapshot(
        policy=own.policy,
        optimizers=own.optimizers,
        schedules={},
        ema=own.ema,
        record=record,
        rank=rank,
    )


def trained(base, rank, world, parallelism):
    own = learner(base, world, parallelism)
    if parallelism.dp_shard != 1:
        sharded = [p for p in own.policy.parameters() if hasattr(p, "to_local")]
        assert any(not p.requires_grad for p in sharded), "the frozen base is in parts too"
        assert sum(p.to_local().numel() for p in sharded) < sum(p.numel() for p in sharded) * 0.75
    train(own, rank, world)
    return snapshot(own, rank)


def _worker(rank, world, port, base, parallelism, path):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    taken = trained(base, rank, world, parallelism)
    if rank == 0:
        torch.save({"weights": taken.weights, "ema": taken.ema.weights}, path)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(3)
    build_policy(config_of(CASE)).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_on_copies_and_on_shards_it_trains_like_one_process(tmp_path, base):
    alone = trained(base, 0, 1, ParallelismConfig())
    assert all("lora_" in name or "action_head" in name for name in alone.weights)
    assert alone.ema.weights.keys() == alone.weights.keys()
    found = {}
    for name, parallelism in (("ddp", ParallelismConfig()), ("fsdp2", ParallelismConfig(dp_shard=2))):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        mp.spawn(_worker, (2, port, base, parallelism, str(tmp_path / name)), nprocs=2)
        found[name] = torch.load(tmp_path / name)
    for name, result in found.items():
        for kind, expected in (("weights", alone.weights), ("ema", alone.ema.weights)):
            assert result[kind].keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(result[kind][key], value, rtol=1e-5, atol=1e-6, msg=f"{name} {kind} {key}")


def test_a_checkpoint_holds_the_adapter_alone_and_resumes_bit_equal(tmp_path, base):
    unbroken = learner(base, 1, ParallelismConfig())
    train(unbroken, 0, 1, steps=2 * STEPS)

    first = learner(base, 1, ParallelismConfig())
    train(first, 0, 1)
    config = TrainConfig(dataset=DatasetConfig(repo_id="a/b"), policy=first.policy.config, peft=PeftConfig(r=4))
    stats = {
        key: {"mean": np.zeros(shape), "std": np.ones(shape)} for key, shape in {**CASE.shapes, "action": 3}.items()
    }
    processors = processors_for_run(first.policy.config, stats)
    with new_checkpoint(tmp_path, STEPS, total_steps=STEPS) as folder:
        write_snapshot(
            snapshot(first, 0),
            folder,
            config=config,
            policy_config=config.policy,
            preprocessor=processors[0],
            postprocessor=processors[1],
        )
    checkpoint = find_checkpoint(tmp_path)
    for name in ("pretrained_model", "pretrained_model_ema"):
        held = {path.name for path in (checkpoint / name).iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "train_config.json"} <= held
        assert "model.safetensors" not in held

    second = learner(base, 1, ParallelismConfig())
    torch.manual_seed(99)
    load_training_state(checkpoint, policy=second.policy, optimizers=second.optimizers, schedules={}, ema=second.ema)
    train(second, 0, 1, first=STEPS)
    for one, other in zip(unbroken.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    for name, average in unbroken.ema.shadow.items():
        assert torch.equal(average, second.ema.shadow[name])
