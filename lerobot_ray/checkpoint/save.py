"""Writes a snapshot in LeRobot's layout, our own files beside LeRobot's. Every file is JSON or safetensors.

pretrained_model/         config.json, model.safetensors, both processors with their states, train_config.json and
                          lerobot_ray.json: a complete policy folder; of an adapter run adapter_config.json and
                          adapter_model.safetensors in place of the weights
pretrained_model_ema/     the same with averaged weights; only with an average
training_state/           training_step.json, lerobot_ray_state.json, rng_state.safetensors, optimizer and schedule
                          (in sub-folders when there are several), grad_scaler_state.json, ema_state.json

Of a snapshot in parts the weights and the optimizer's tensors are not among them; `sharded` writes those.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lerobot_ray.checkpoint.optimizer import save_groups, save_optimizer_state, save_scheduler_state, state_folder
from lerobot_ray.checkpoint.rng import RNG_NAME
from lerobot_ray.checkpoint.snapshot import Snapshot
from lerobot_ray.checkpoint.state import save_record
from lerobot_ray.checkpoint.tensors import write_tensors
from lerobot_ray.config.encode import encode
from lerobot_ray.config.files import save_train_config
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.layout import (
    ADAPTER_WEIGHTS_NAME,
    PRETRAINED_DIR,
    PRETRAINED_EMA_DIR,
    TRAINING_STATE_DIR,
    WEIGHTS_NAME,
)
from lerobot_ray.policies.adapters.files import write_settings
from lerobot_ray.policies.config_file import save_config

EMA_NAME = "ema_state.json"
SCALER_NAME = "grad_scaler_state.json"


def write_snapshot(
    snapshot: Snapshot,
    folder: Path,
    *,
    config: TrainConfig,
    policy_config: Any,
    preprocessor: Any,
    postprocessor: Any,
) -> None:
    """Fill `folder`, an open one of `commit.new_checkpoint`. Runs beside training, so it reads nothing that moves."""
    config = dataclasses.replace(config, policy=policy_config)
    model = {"config": config, "policy_config": policy_config, "processors": (preprocessor, postprocessor)}
    model["adapter"] = snapshot.adapter
    in_parts = bool(snapshot.parts)
    write_policy_folder(folder / PRETRAINED_DIR, None if in_parts else snapshot.weights, **model)
    if snapshot.ema is not None:
        averaged = None if in_parts else {**snapshot.weights, **snapshot.ema.weights}
        write_policy_folder(folder / PRETRAINED_EMA_DIR, averaged, **model)
    _write_training_state(snapshot, folder / TRAINING_STATE_DIR)


def write_policy_folder(
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None,
    *,
    config: TrainConfig,
    policy_config: Any,
    processors: tuple[Any, Any],
    adapter: Mapping[str, Any] | None = None,
) -> None:
    """A folder that `--policy.path` takes, here and in LeRobot, and that is pushed to the Hub as it is.

    `adapter`: the weights are an adapter's, with these settings. Without `weights` they are still to come.
    """
    folder.mkdir(parents=True)
    save_config(policy_config, folder)
    if adapter is not None:
        write_settings(adapter, folder)
    if weights is not None:
        write_tensors(weights, folder / weights_file_name(adapter))
    for processor in processors:
        processor.save_pretrained(folder)
    save_train_config(config, folder)


def weights_file_name(adapter: Mapping[str, Any] | None) -> str:
    """The file of a policy folder that holds what is trained."""
    return WEIGHTS_NAME if adapter is None else ADAPTER_WEIGHTS_NAME


def _write_training_state(snapshot: Snapshot, folder: Path) -> None:
    save_record(snapshot.record, folder)
    write_tensors(snapshot.rng, folder / RNG_NAME)
    for name, state in snapshot.optimizers.items():
        (save_groups if snapshot.parts else save_optimizer_state)(state, state_folder(folder, name))
    for name, schedule in snapshot.schedules.items():
        save_scheduler_state(schedule, state_folder(folder, name))
    if snapshot.scaler is not None:
        (folder / SCALER_NAME).write_text(json.dumps(snapshot.scaler, indent=4))
    if snapshot.ema is not None:
        ema = {"num_updates": snapshot.ema.num_updates, "config": encode(snapshot.ema.config)}
        (folder / EMA_NAME).write_text(json.dumps(ema, indent=4))
