"""What a checkpoint needs, copied to host memory between two steps. The loop waits for this and for nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lerobot_ray.checkpoint.optimizer import OptimizerState, portable
from lerobot_ray.checkpoint.rng import rng_state
from lerobot_ray.checkpoint.state import RunRecord
from lerobot_ray.checkpoint.tensors import HostCopies, is_in_parts
from lerobot_ray.policies.adapters.attach import adapter_of

COMPILED_PREFIX = "_orig_mod."


@dataclass(frozen=True)
class EmaState:
    """The averaged parameters under the names of the weights, and how far the average has come."""

    weights: dict[str, torch.Tensor]
    num_updates: int
    config: Any


@dataclass(frozen=True)
class Snapshot:
    """A run at one step, whole and in host memory: nothing in it changes while training goes on."""

    record: RunRecord
    weights: dict[str, torch.Tensor]
    optimizers: dict[str, OptimizerState]
    schedules: dict[str, dict[str, Any]]
    ema: EmaState | None
    scaler: dict[str, Any] | None
    rng: dict[str, torch.Tensor]
    adapter: dict[str, Any] | None = None
    """The settings of the adapter whose weights these are; None: they are a whole policy's."""

    @property
    def num_bytes(self) -> int:
        """About what its files take."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> Iterable[torch.Tensor]:
        yield from self.weights.values()
        for optimizer in self.optimizers.values():
            for entries in optimizer["state"].values():
                yield from (value for value in entries.values() if isinstance(value, torch.Tensor))
        if self.ema is not None:  # its folder holds a copy of what is not averaged, too
            yield from self.weights.values()


def take_snapshot(
    *,
    policy: torch.nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedules: Mapping[str, torch.optim.lr_scheduler.LRScheduler],
    ema: Any | None,
    scaler: Any | None = None,
    record: RunRecord,
    rank: int,
    copies: HostCopies | None = None,
) -> Snapshot | None:
    """Collective: every rank calls this. The run as it is now; None on all ranks but the first.

    `ema` has `shadow` (parameter name -> tensor), `num_updates` and `config`. Tensors in parts are gathered one at a
    time. A snapshot takes as much host memory as the checkpoint will take on disk: wait for the writer first, and there
    is one at a time.
    """
    copies = copies or HostCopies(keeps=rank == 0)
    copies.begin()
    weights = copies.of(saved_weights(policy))
    adapter = adapter_of(policy)
    states = {name: _optimizer_state(optimizer, copies) for name, optimizer in optimizers.items()}
    average = copies.of(average_by_weight(policy, ema.shadow)) if ema is not None else {}
    if not copies.keeps:
        return None
    copies.arrived()
    return Snapshot(
        record=record,
        weights=weights,
        optimizers=states,
        schedules={name: schedule.state_dict() for name, schedule in schedules.items()},
        ema=EmaState(average, ema.num_updates, ema.config) if ema is not None else None,
        scaler=scaler.state_dict() if scaler is not None and scaler.is_enabled() else None,
        rng=rng_state(),
        adapter=dict(adapter.settings) if adapter is not None else None,
    )


def saved_weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The live tensors that a checkpoint holds, by their names in it: the adapter's, or all of the policy."""
    adapter = adapter_of(policy)
    return named_weights(policy) if adapter is None else adapter.weights()


def named_weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `policy.state_dict()` under the names LeRobot saves: of those that share memory the first one."""
    kept: dict[tuple[Any, ...], str] = {}
    state = all_weights(policy)
    for name in sorted(state):
        kept.setdefault(identity_of(state[name]), name)
    return {name: state[name] for name in sorted(kept.values())}


def average_by_weight(policy: torch.nn.Module, shadow: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Averaged parameters under the names of the weights they are averages of."""
    state = {identity_of(tensor): name for name, tensor in saved_weights(policy).items()}
    parameters = dict(policy.named_parameters())
    return {state[identity_of(parameters[name])]: tensor for name, tensor in shadow.items()}


def all_weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The live tensors of `policy.state_dict()` under every name they have, compiled or not."""
    return {name.replace(COMPILED_PREFIX, ""): value for name, value in policy.state_dict(keep_vars=True).items()}


def identity_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for two names of one tensor. Parts may be empty, so those go by the object, alike on every rank."""
    if is_in_parts(tensor) or tensor.numel() == 0 or tensor.device.type == "meta":
        return (id(tensor),)
    storage = tensor.untyped_storage().data_ptr()
    return (storage, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)


def _optimizer_state(optimizer: torch.optim.Optimizer, copies: HostCopies) -> OptimizerState:
    state = portable(optimizer.state_dict())
    entries = {
        (number, name): value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number in sorted(state["state"])
        for name, value in sorted(state["state"][number].items())
        if value is not None
    }
    copied: dict[int, dict[str, torch.Tensor]] = {}
    for (number, name), tensor in copies.of(entries).items():
        copied.setdefault(number, {})[name] = tensor
    groups = [
        {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return {"state": copied, "param_groups": groups}
