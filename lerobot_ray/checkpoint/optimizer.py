"""Optimizer and scheduler state in LeRobot's files: tensors in safetensors, everything else in JSON, no pickle.

    training_state/optimizer_state.safetensors     state/<i>/<name>, i counts parameters over the groups in order
    training_state/optimizer_param_groups.json     hyper-parameters per group, with the numbers of its parameters
    training_state/scheduler_state.json            only with a scheduler

Several optimizers (`multi_adam`) get a sub-folder each. What is read here was written by LeRobot or by this package,
under any torch version: hyper-parameters it did not know keep the fresh optimizer's value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lerobot_ray.checkpoint.saved import Saved, open_saved
from lerobot_ray.checkpoint.tensors import write_tensors
from lerobot_ray.core.errors import CheckpointError

STATE_NAME = "optimizer_state.safetensors"
GROUPS_NAME = "optimizer_param_groups.json"
SCHEDULER_NAME = "scheduler_state.json"

MAIN = "main"
"""What the optimizer is called where there is only one. Its files have no sub-folder."""

IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
"""Group entries that say how a step is computed, not what it computes: chosen where a run is, never loaded."""

OptimizerState = dict[str, Any]
"""What `torch.optim.Optimizer.state_dict()` returns: `state` by parameter number, `param_groups`."""

Place = Callable[[int, str, Saved], torch.Tensor]
"""(parameter number, "exp_avg", the saved tensor) -> the tensor to load, on its device, in this rank's part."""

_KIND = ("betas", "momentum", "alpha", "rho", "lr_decay", "decoupled_weight_decay")
"""Group entries by which kinds of optimizers differ. The last one is a value: Adam and AdamW share the keys."""


def portable(state: OptimizerState) -> OptimizerState:
    """The state with torch free to choose the implementation where it is loaded, as LeRobot writes it."""
    free = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
    groups = [{key: free.get(key, value) for key, value in group.items()} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def state_folder(training_state: Path, name: str) -> Path:
    """Where the optimizer called `name` and its schedule are kept."""
    return training_state if name == MAIN else training_state / name


def save_optimizer_state(state: OptimizerState, folder: Path) -> None:
    """Write one optimizer's state dict. Tensors may be on any device; they are written contiguous, from host memory."""
    save_groups(state, folder)
    tensors = {
        key_of(number, name): value.detach().cpu().contiguous()
        for number, entries in state["state"].items()
        for name, value in entries.items()
    }
    write_tensors(tensors, folder / STATE_NAME)


def save_groups(state: OptimizerState, folder: Path) -> None:
    """Write the hyper-parameters alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GROUPS_NAME).write_text(json.dumps([_plain(group) for group in state["param_groups"]], indent=4))


def key_of(number: int, name: str, *, of: str = "state") -> str:
    """What a tensor is called in a file. `of`: the optimizer, where several share a file."""
    return f"{of}/{number}/{name}"


def load_optimizer_state(
    fresh: OptimizerState,
    folder: Path,
    *,
    place: Place | None = None,
    tensors: Mapping[str, Saved] | None = None,
    of: str = "state",
) -> OptimizerState:
    """The saved state, shaped like `fresh`, the state dict of the optimizer it is for. Reads one tensor at a time.

    `tensors` are those of the checkpoint, opened, with `of` in front of their keys, where the folder has none.
    """
    try:
        groups = json.loads((folder / GROUPS_NAME).read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no optimizer state ({GROUPS_NAME} is missing).") from error
    _check_groups(groups, fresh["param_groups"], folder / GROUPS_NAME)
    state: dict[int, dict[str, torch.Tensor]] = {}
    with open_saved(folder / STATE_NAME) if tensors is None else nullcontext(tensors) as found:
        for key, saved in found.items():
            owner, number, name = key.split("/", 2)
            if owner == of:
                loaded = place(int(number), name, saved) if place else saved.read().clone()
                state.setdefault(int(number), {})[name] = loaded
    merged = [
        {key: _like(group[key], value) if _is_loaded(key, group) else value for key, value in current.items()}
        | {key: value for key, value in group.items() if key == "initial_lr"}
        for group, current in zip(groups, fresh["param_groups"], strict=True)
    ]
    return {"state": state, "param_groups": merged}


def _check_groups(saved: list[dict[str, Any]], fresh: list[dict[str, Any]], path: Path) -> None:
    was, now = ([group["params"] for group in side] for side in (saved, fresh))
    if was != now:
        raise CheckpointError(
            f"{path}: saved for parameter groups of {[len(p) for p in was]} parameters, this policy has "
            f"{[len(p) for p in now]}. The checkpoint is of another policy, or of other trainable parameters."
        )
    for group, current in zip(saved, fresh, strict=True):
        others = [key for key in _KIND[:-1] if (key in group) != (key in current)]
        if not others and all(_KIND[-1] in side and side[_KIND[-1]] is not None for side in (group, current)):
            others = [_KIND[-1]] if group[_KIND[-1]] != current[_KIND[-1]] else []
        if others:
            raise CheckpointError(
                f"{path}: saved by another kind of optimizer (they differ in {', '.join(others)}). Resume with the "
                "optimizer.type it was saved with, or start a new run from the saved policy."
            )


def _is_loaded(key: str, saved: Mapping[str, Any]) -> bool:
    return key in saved and key not in IMPLEMENTATION


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
