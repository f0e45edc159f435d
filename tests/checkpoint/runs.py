"""Tiny real runs for the checkpoint tests: a policy, what moves it, batches by step, and saving and loading them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot_ray.checkpoint.commit import new_checkpoint
from lerobot_ray.checkpoint.load import load_training_state
from lerobot_ray.checkpoint.save import write_snapshot
from lerobot_ray.checkpoint.sharded import PartWriter, write_sharded
from lerobot_ray.checkpoint.snapshot import take_snapshot
from lerobot_ray.checkpoint.state import RunRecord
from lerobot_ray.checkpoint.together import Together
from lerobot_ray.checkpoint.writer import CheckpointWriter
from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.optim import CosineDecayWithWarmupSchedulerConfig
from lerobot_ray.config.parallel import AcceleratorConfig, ParallelismConfig
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.data.order import build_order
from lerobot_ray.engine.ema import Ema
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.engine.parallel import place
from lerobot_ray.engine.randomness import seed_step
from lerobot_ray.engine.schedule import build_schedules
from lerobot_ray.engine.step import backward, move
from lerobot_ray.policies.registry import build_policy
from lerobot_ray.processing import processors_for_run

FRONT, STATE, ACTION = "observation.images.front", "observation.state", "action"
ENVIRONMENT = "observation.environment_state"
GLOBAL_BATCH, TOTAL_STEPS = 4, 100
NUM_SAMPLES = 30

OPTIONS: dict[str, dict[str, Any]] = {
    "act": {
        "chunk_size": 8,
        "n_action_steps": 2,
        "dim_model": 32,
        "n_heads": 2,
        "dim_feedforward": 64,
        "n_encoder_layers": 2,
        "n_vae_encoder_layers": 1,
        "latent_dim": 8,
        "pretrained_backbone_weights": None,
    }
}


@dataclass
class Run:
    """One process's part of a run."""

    config: TrainConfig
    policy: Any
    learner: Learner
    processors: tuple[Any, Any]
    rank: int = 0
    world_size: int = 1
    step: int = 0

    def train(self, count: int) -> None:
        share = GLOBAL_BATCH // self.world_size
        for _ in range(count):
            seed_step(0, self.step, 0)  # alike on all ranks: dropout would differ otherwise
            batch = whole_batch(self.step)
            mine = {key: value[self.rank * share : (self.rank + 1) * share] for key, value in batch.items()}
            self.policy.train()
            result = backward(self.learner, [self.processors[0](mine)], count=1, device=torch.device("cpu"))
            move(self.learner, result)
            self.step += 1

    def parts(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "optimizers": self.learner.optimizers,
            "schedules": self.learner.schedules,
            "ema": self.learner.ema,
            "scaler": self.learner.scaler,
        }

    def record(self) -> RunRecord:
        order = build_order("frames", num_samples=NUM_SAMPLES, seed=7, episode_lengths=np.array([NUM_SAMPLES]))
        return RunRecord(
            step=self.step,
            samples_seen=self.step * GLOBAL_BATCH,
            seed=7,
            global_batch=GLOBAL_BATCH,
            world_size=self.world_size,
            order=order.state(),
            dataset={"repo_id": "tests/toy", "selection": "abc"},
        )

    def snapshot(self, *, in_parts=False):
        return take_snapshot(**self.parts(), record=self.record(), rank=self.rank, in_parts=in_parts)

    def write(self):
        """What a CheckpointWriter calls."""
        pre, post = self.processors
        return functools.partial(
            write_snapshot, config=self.config, policy_config=self.policy.config, preprocessor=pre, postprocessor=post
        )

    def save(self, run_dir: Path) -> Path:
        """Collective."""
        snapshot = self.snapshot()
        if snapshot is not None:
            with new_checkpoint(run_dir, self.step, total_steps=TOTAL_STEPS) as folder:
                self.write()(snapshot, folder)
        return run_dir / "checkpoints" / f"{self.step:06d}"

    def writer_of_parts(self, run_dir: Path, *, has_whole: bool = False, mark: str = "start"):
        """Collective. This rank's; `submit` takes `snapshot(in_parts=True)`."""
        together = Together(rank=self.rank, world_size=self.world_size)
        if self.rank:
            return PartWriter(run_dir, total_steps=TOTAL_STEPS, mark=mark, together=together)
        pre, post = self.processors
        write = functools.partial(
            write_sharded,
            together=together,
            has_whole=has_whole,
            config=self.config,
            policy_config=self.policy.config,
            preprocessor=pre,
            postprocessor=post,
        )
        return CheckpointWriter(run_dir, total_steps=TOTAL_STEPS, write=write, mark=mark)

    def load(self, checkpoint: Path) -> None:
        """Collective."""
        load_training_state(checkpoint, **self.parts())
        self.step = int(checkpoint.name)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Collective. Everything that moves, whole: to compare two runs with."""
        found = {f"weight/{name}": value for name, value in self.policy.state_dict().items()}
        for name, optimizer in self.learner.optimizers.items():
            for number, entries in optimizer.state_dict()["state"].items():
                found |= {f"{name}/{number}/{key}": value for key, value in entries.items()}
            rates = [group["lr"] for group in optimizer.param_groups]
            found[f"{name}/lr"] = torch.tensor(rates, dtype=torch.float64)
        for name, schedule in self.learner.schedules.items():
            found[f"{name}/epoch"] = torch.tensor(schedule.last_epoch)
        if ema := self.learner.ema:
            found |= {f"ema/{name}": value for name, value in ema.shadow.items()}
            found["ema/updates"] = torch.tensor(ema.num_updates)
        whole = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in found.items()}
        return {key: value.detach().clone() for key, value in whole.items()}


def make_run(
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    parallelism: ParallelismConfig | None = None,
    with_schedule: bool = True,
    with_ema: bool = True,
    optimizer: Any = None,
    camera: bool = False,
    kind: str = "act",
    **options: Any,
) -> Run:
    torch.manual_seed(seed)
    policy_config = PolicyConfig.get_choice_class(kind)(
        device="cpu", push_to_hub=False, **{**OPTIONS[kind], "dropout": 0.0, **options}
    )
    seen = {FRONT: PolicyFeature(FeatureType.VISUAL, (3, 32, 48))} if camera else {}  # brings eleven million weights
    policy_config.input_features = {
        **seen,
        STATE: PolicyFeature(FeatureType.STATE, (4,)),
        ENVIRONMENT: PolicyFeature(FeatureType.ENV, (5,)),
    }
    policy_config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (4,))}
    schedule = CosineDecayWithWarmupSchedulerConfig(num_warmup_steps=3, num_decay_steps=50, peak_lr=1e-3, decay_lr=1e-4)
    config = TrainConfig(
        dataset=DatasetConfig(repo_id="tests/toy"),
        policy=policy_config,
        batch_size=GLOBAL_BATCH // world_size,
        steps=TOTAL_STEPS,
        optimizer=optimizer or policy_config.get_optimizer_preset(),
        scheduler=schedule if with_schedule else None,
        ema=EmaConfig(enable=with_ema),
    )
    policy = build_policy(policy_config)
    placed = place(
        policy,
        device=torch.device("cpu"),
        world_size=world_size,
        parallelism=parallelism or ParallelismConfig(),
        accelerator=AcceleratorConfig(),
    )
    optimizers = build_optimizers(config.optimizer, policy.get_optim_params())
    learner = Learner(
        policy=policy,
        forward=placed.forward,
        optimizers=optimizers,
        schedules=build_schedules(config.scheduler, optimizers, TOTAL_STEPS),
        ema=Ema(policy, config.ema) if with_ema else None,
        sync_gradients=placed.sync_gradients,
    )
    return Run(config, policy, learner, processors_for_run(policy_config, stats()), rank, world_size)


def stats():
    rng = np.random.default_rng(5)

    def of(*shape):
        low, high = rng.normal(size=shape) - 2, rng.normal(size=shape) + 2
        return {"mean": (low + high) / 2, "std": (high - low) / 3, "min": low, "max": high, "count": np.array([24])}

    return {FRONT: of(3, 1, 1), STATE: of(4), ENVIRONMENT: of(5), ACTION: of(4)}


def whole_batch(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        FRONT: torch.rand(GLOBAL_BATCH, 3, 32, 48, generator=generator),
        STATE: torch.randn(GLOBAL_BATCH, 4, generator=generator),
        ENVIRONMENT: torch.randn(GLOBAL_BATCH, 5, generator=generator),
        ACTION: torch.randn(GLOBAL_BATCH, 8, 4, generator=generator),
        "action_is_pad": torch.zeros(GLOBAL_BATCH, 8, dtype=torch.bool),
        "stream_index": torch.arange(GLOBAL_BATCH) + step * GLOBAL_BATCH,
    }


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    different = [key for key, value in expected.items() if not torch.equal(found[key], value)]
    assert not different, f"{len(different)} of {len(expected)} differ: {different[:5]}"
