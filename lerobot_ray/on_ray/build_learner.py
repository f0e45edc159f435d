"""From a run's config to what a step moves: the policy on its devices, its optimizers, schedules and average."""

from __future__ import annotations

import dataclasses
import os
from operator import itemgetter
from pathlib import Path
from typing import Any

import ray.train.torch
import torch

from lerobot_ray.config.parallel import autocast_precision, is_sharded
from lerobot_ray.core.types import SAMPLE_WEIGHT
from lerobot_ray.engine.ema import Ema
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.engine.parallel import place
from lerobot_ray.engine.schedule import build_schedules
from lerobot_ray.hub.elsewhere import on_this_node
from lerobot_ray.on_ray.outline import without_pretrained
from lerobot_ray.on_ray.pretrained import policy_at
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.policies.adapters.plan import AdapterPlan, build_adapted
from lerobot_ray.policies.registry import build_policy

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_learner(setup: RunSetup, *, device: torch.device, world_size: int, has_weights: bool) -> Learner:
    """Collective: every rank calls this. The policy on its devices and what moves it.

    `has_weights`: they come from a checkpoint, so that fetching pretrained ones would be for nothing.
    """
    config = setup.config
    policy_config: Any = config.policy
    precision = autocast_precision(config.accelerator, policy_config, device=device.type)
    dtype = PRECISIONS[precision]
    torch.manual_seed(setup.seed)
    build: dict[str, Any] = {
        "dataset_stats": setup.stats,
        "dataset_meta": setup.spec.metadata,
        "device": "cpu" if is_sharded(config.parallelism) else str(device),
    }
    if setup.adapter is not None:  # of which a checkpoint holds no base
        adapter = _with_local_weights(setup.adapter)
        policy = build_adapted(policy_config, adapter, loads_weights=not has_weights, **build)
    else:
        begins = _with_local_pretrained(policy_config, setup.pretrained)
        policy = build_policy(without_pretrained(policy_config) if has_weights else begins, **build)
    policy.noise_seed = setup.seed
    placed = place(
        policy,
        device=device,
        world_size=world_size,
        parallelism=config.parallelism,
        accelerator=config.accelerator,
        compute_dtype=dtype,
    )
    optimizers = build_optimizers(config.optimizer, policy.get_optim_params())
    return Learner(
        policy=policy,
        forward=placed.forward,
        optimizers=optimizers,
        schedules=build_schedules(config.scheduler, optimizers, config.steps),
        grad_clip_norm=getattr(config.optimizer, "grad_clip_norm", 0.0) or 0.0,
        autocast_dtype=dtype,
        scaler=torch.amp.GradScaler(device.type) if precision == "fp16" else None,
        ema=Ema(policy, config.ema) if config.ema.enable else None,
        weigh=itemgetter(SAMPLE_WEIGHT) if setup.spec.weights is not None else None,
        sync_gradients=placed.sync_gradients,
    )


def _with_local_weights(adapter: AdapterPlan) -> AdapterPlan:
    """The plan with the adapter's saved weights on this node's disk."""
    if adapter.weights is None:
        return adapter
    weights = Path(adapter.weights)
    return dataclasses.replace(adapter, weights=str(on_this_node(weights.parent) / weights.name))


def _with_local_pretrained(policy_config: Any, folder: Path | None) -> Any:
    """The config with the policy it starts from on this node's disk; the config that is saved keeps its name."""
    if folder is None:
        return policy_config
    return policy_at(policy_config, on_this_node(folder))


def training_device(setup: RunSetup) -> torch.device:
    wanted = str(setup.config.policy.device)  # type: ignore[union-attr]
    return ray.train.torch.get_device() if wanted == "cuda" else torch.device(wanted)


def set_up_torch(setup: RunSetup) -> None:
    torch.backends.cudnn.benchmark = not setup.config.cudnn_deterministic
    torch.backends.cudnn.deterministic = setup.config.cudnn_deterministic
    if "OMP_NUM_THREADS" not in os.environ:
        return
    # Ray gives a worker as many threads as CPUs it reserved, which is how many are its own.
    torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"])))
