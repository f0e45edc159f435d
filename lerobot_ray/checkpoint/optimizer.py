"""Optimizer and scheduler state in LeRobot's files: tensors in safetensors, everything else in JSON, no pickle.

    training_state/optimizer_state.safetensors     state/<i>/<name>, i counts parameters over the groups in order
    training_state/optimizer_param_groups.json     hyper-parameters per group, with the numbers of its parameters
    training_state/scheduler_state.json            only with a scheduler

Several optimizers (`multi_adam`) get a sub-folder each. What is read here was written by LeRobot or by this package,
under any torch version: hyper-parameters it did not know keep the fresh optimizer's value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lerobot_ray.core.errors import CheckpointError

STATE_NAME = "optimizer_state.safetensors"
GROUPS_NAME = "optimizer_param_groups.json"
SCHEDULER_NAME = "scheduler_state.json"

OptimizerState = dict[str, Any]
"""What `torch.optim.Optimizer.state_dict()` returns: `state` by parameter number, `param_groups`."""


def save_optimizer_state(state: OptimizerState, folder: Path) -> None:
    """Write one optimizer's state dict. Tensors may be on any device; they are written contiguous, from host memory."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"state/{number}/{name}": value.detach().cpu().contiguous()
        for number, entries in state["state"].items()
        for name, value in entries.items()
    }
    save_file(tensors, folder / STATE_NAME)
    (folder / GROUPS_NAME).write_text(json.dumps([_plain(group) for group in state["param_groups"]], indent=4))


def load_optimizer_state(fresh: OptimizerState, folder: Path) -> OptimizerState:
    """The saved state, shaped like `fresh`, the state dict of the optimizer it is for."""
    try:
        groups = json.loads((folder / GROUPS_NAME).read_text())
        tensors = load_file(folder / STATE_NAME)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no optimizer state ({Path(error.filename or '').name} is missing)."
        ) from error
    saved, wanted = ([group["params"] for group in side] for side in (groups, fresh["param_groups"]))
    if saved != wanted:
        raise CheckpointError(
            f"{folder / GROUPS_NAME}: saved for parameter groups of {[len(p) for p in saved]} parameters, this policy "
            f"has {[len(p) for p in wanted]}. The checkpoint is of another policy, or of other trainable parameters."
        )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        _, number, name = key.split("/", 2)
        state.setdefault(int(number), {})[name] = tensor
    merged = [
        {key: _like(group[key], value) if key in group else value for key, value in current.items()}
        | {key: value for key, value in group.items() if key == "initial_lr"}
        for group, current in zip(groups, fresh["param_groups"], strict=True)
    ]
    return {"state": state, "param_groups": merged}


def save_scheduler_state(state: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCHEDULER_NAME).write_text(json.dumps(_plain(state), indent=4))


def load_scheduler_state(folder: Path) -> dict[str, Any] | None:
    """The saved schedule's state, or None if the run had none."""
    path = folder / SCHEDULER_NAME
    return json.loads(path.read_text()) if path.exists() else None


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):  # a learning rate may be a tensor under torch.compile
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _like(saved: Any, current: Any) -> Any:
    return tuple(saved) if isinstance(current, tuple) else saved
