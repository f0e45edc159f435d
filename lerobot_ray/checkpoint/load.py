"""Brings a run back to where a checkpoint left it: weights, optimizers, schedules, average, loss scale.

Every rank reads its part of each tensor from the files itself, whole files or other ranks' parts: nothing is sent
between ranks, a sharded run needs no more room than its shards, and a checkpoint of any number of workers loads on any
other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.checkpoint.optimizer import (
    MAIN,
    SCHEDULER_NAME,
    load_optimizer_state,
    load_scheduler_state,
    state_folder,
)
from lerobot_ray.checkpoint.save import EMA_NAME, SCALER_NAME
from lerobot_ray.checkpoint.saved import Saved, open_saved
from lerobot_ray.checkpoint.snapshot import (
    AVERAGE,
    COMPILED_PREFIX,
    MODEL,
    OPTIMIZERS,
    all_weights,
    average_by_weight,
    identity_of,
)
from lerobot_ray.checkpoint.state import RunRecord, is_lerobot_checkpoint, load_record
from lerobot_ray.checkpoint.tensors import put, whole
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import (
    ADAPTER_WEIGHTS_NAME,
    PRETRAINED_DIR,
    PRETRAINED_EMA_DIR,
    SHARDED_DIR,
    TRAINING_STATE_DIR,
    WEIGHTS_NAME,
)
from lerobot_ray.policies.adapters.attach import adapter_of

__all__ = [
    "RunRecord",
    "find_checkpoint",
    "is_lerobot_checkpoint",
    "load_record",
    "load_training_state",
    "load_weights",
]

logger = logging.getLogger(__name__)

_SHOWN = 6


def load_training_state(
    checkpoint: Path,
    *,
    policy: torch.nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedules: Mapping[str, torch.optim.lr_scheduler.LRScheduler],
    ema: Any | None = None,
    scaler: Any | None = None,
) -> None:
    """Collective under sharding: every rank calls this, with the checkpoint in reach of its file system.

    All are built and placed already, the optimizers over the placed parameters. CheckpointError says what does not fit.
    """
    checkpoint = Path(checkpoint)
    folder = checkpoint / TRAINING_STATE_DIR
    parts = checkpoint / SHARDED_DIR
    load_weights(policy, parts / MODEL if parts.is_dir() else checkpoint / PRETRAINED_DIR / weights_name(policy))
    _check_names(optimizers, folder)
    with open_saved(parts / OPTIMIZERS) if parts.is_dir() else nullcontext() as tensors:
        for name, optimizer in optimizers.items():
            _load_optimizer(optimizer, state_folder(folder, name), tensors, name)
    for name in optimizers:
        _load_schedule(schedules.get(name), state_folder(folder, name))
    if ema is not None:
        _load_average(ema, policy, checkpoint)
    if scaler is not None and scaler.is_enabled():
        _load_scaler(scaler, folder / SCALER_NAME)


def load_weights(policy: torch.nn.Module, path: Path) -> None:
    """Fill a placed policy, or its adapter, from a file or a folder of parts. Names and shapes must be the same."""
    adapter = adapter_of(policy)
    targets = all_weights(policy) if adapter is None else adapter.weights()
    with open_saved(path) as found:
        saved = {name.replace(COMPILED_PREFIX, ""): tensor for name, tensor in found.items()}
        # of names that share a tensor, a file has one
        filled = {identity_of(targets[name]) for name in saved if name in targets}
        problems = {
            "of another shape": [
                f"{name} is {tensor.shape} in the file, {tuple(targets[name].shape)} in the policy"
                for name, tensor in saved.items()
                if name in targets and tensor.shape != tuple(targets[name].shape)
            ],
            "missing": [name for name, target in targets.items() if identity_of(target) not in filled],
            "unexpected": [name for name in saved if name not in targets],
        }
        wrong = [f"{len(some)} {what}: {_some(some)}" for what, some in problems.items() if some]
        if wrong:
            raise CheckpointError(
                f"{path} does not fit {type(policy).__name__}: {'; '.join(wrong)}. The checkpoint is of another policy "
                "or of other features; its own are in the config.json beside it."
            )
        for name, tensor in saved.items():
            tensor.fill(targets[name])


def weights_name(policy: torch.nn.Module) -> str:
    """The file that holds what is trained of this policy."""
    return WEIGHTS_NAME if adapter_of(policy) is None else ADAPTER_WEIGHTS_NAME


def _check_names(optimizers: Mapping[str, Any], folder: Path) -> None:
    if MAIN in optimizers:
        return
    if absent := [name for name in optimizers if not state_folder(folder, name).is_dir()]:
        there = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        raise CheckpointError(
            f"{folder} has no state of the optimizers {', '.join(absent)}; it has {', '.join(there) or 'a single one'}."
        )


def _load_optimizer(
    optimizer: torch.optim.Optimizer, folder: Path, tensors: Mapping[str, Saved] | None, name_in_parts: str
) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def place(number: int, name: str, saved: Saved) -> torch.Tensor:
        if number >= len(parameters):
            raise CheckpointError(f"{folder} has state of parameter {number}, the optimizer has {len(parameters)}.")
        parameter = parameters[number]
        if saved.shape and saved.shape != tuple(parameter.shape):
            raise CheckpointError(
                f"{folder}: {name} of parameter {number} is {saved.shape}, the parameter is "
                f"{tuple(parameter.shape)}. The checkpoint is of another policy or of other features."
            )
        return saved.like(parameter) if saved.shape else saved.read().clone()

    of = "state" if tensors is None else name_in_parts
    state = load_optimizer_state(optimizer.state_dict(), folder, place=place, tensors=tensors, of=of)
    optimizer.load_state_dict(state)


def _load_schedule(schedule: torch.optim.lr_scheduler.LRScheduler | None, folder: Path) -> None:
    saved = load_scheduler_state(folder)
    if schedule is None and saved is not None:
        raise CheckpointError(
            f"{folder / SCHEDULER_NAME} holds a learning-rate schedule, and this run has none. Resume with the "
            "scheduler it was saved with."
        )
    if schedule is None:
        return
    if saved is None:
        raise CheckpointError(
            f"{folder} holds no learning-rate schedule, and this run has one. Resume with --scheduler=null, as it was "
            "saved."
        )
    if _settings_of(saved) != _settings_of(schedule.state_dict()):
        raise CheckpointError(
            f"{folder / SCHEDULER_NAME} is of another kind of schedule (it has {_some(sorted(_settings_of(saved)))}). "
            "Resume with the scheduler.type it was saved with."
        )
    schedule.load_state_dict(saved)


def _settings_of(schedule: Mapping[str, Any]) -> set[str]:
    """What a kind of schedule keeps. Names with an underscore are torch's own and change with its versions."""
    return {key for key in schedule if not key.startswith("_")}


def _load_average(ema: Any, policy: torch.nn.Module, checkpoint: Path) -> None:
    path = checkpoint / TRAINING_STATE_DIR / EMA_NAME
    if not path.is_file():
        logger.warning("%s holds no averaged weights: the average begins with its trained ones", checkpoint)
        live = dict(policy.named_parameters())
        for name, shadow in ema.shadow.items():
            put(shadow, whole(live[name]))
        ema.num_updates = 0
        return
    averages = average_by_weight(policy, ema.shadow)
    parts = checkpoint / SHARDED_DIR / AVERAGE
    weights = parts if parts.is_dir() else checkpoint / PRETRAINED_EMA_DIR / weights_name(policy)
    with open_saved(weights) as saved:
        if absent := sorted(averages.keys() - saved.keys()):
            raise CheckpointError(f"{weights} does not fit the average: {len(absent)} missing: {_some(absent)}.")
        for name, average in averages.items():
            saved[name].fill(average)
    ema.num_updates = int(json.loads(path.read_text())["num_updates"])


def _load_scaler(scaler: Any, path: Path) -> None:
    if not path.is_file():
        logger.warning("%s is not there: the loss scale of fp16 is found anew", path)
        return
    scaler.load_state_dict(json.loads(path.read_text()))


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
