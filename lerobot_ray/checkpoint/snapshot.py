"""What a checkpoint needs, copied to host memory between two steps. The loop waits for this and for nothing else.

Whole: tensors are gathered, one at a time, into the first rank's memory. In parts: every rank copies what it has, and
nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lerobot_ray.checkpoint.optimizer import OptimizerState, key_of, portable
from lerobot_ray.checkpoint.rng import rng_state
from lerobot_ray.checkpoint.shares import own_parts
from lerobot_ray.checkpoint.state import RunRecord
from lerobot_ray.checkpoint.tensors import HostCopies, Part, is_in_parts
from lerobot_ray.policies.adapters.attach import adapter_of

COMPILED_PREFIX = "_orig_mod."
MODEL, AVERAGE, OPTIMIZERS = "model", "ema", "optimizer"
"""What there are parts of: folders of a checkpoint in parts."""


@dataclass(frozen=True)
class EmaState:
    """The averaged parameters under the names of the weights, and how far the average has come."""

    weights: dict[str, torch.Tensor]
    num_updates: int
    config: Any


@dataclass(frozen=True)
class Snapshot:
    """A run at one step, in host memory: nothing in it changes while training goes on.

    In parts, `weights`, the state of `optimizers` and the weights of `ema` are empty, and `parts` has this rank's.
    """

    record: RunRecord
    weights: dict[str, torch.Tensor]
    optimizers: dict[str, OptimizerState]
    schedules: dict[str, dict[str, Any]]
    ema: EmaState | None
    scaler: dict[str, Any] | None
    rng: dict[str, torch.Tensor]
    adapter: dict[str, Any] | None = None
    """The settings of the adapter whose weights these are; None: they are a whole policy's."""
    rank: int = 0
    parts: dict[str, dict[str, Part]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """About what its files take."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> Iterable[torch.Tensor]:
        for parts in self.parts.values():  # the ranks write about as much each
            yield from (part.tensor for part in parts.values() for _ in range(self.record.world_size))
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
    in_parts: bool = False,
) -> Snapshot | None:
    """Collective: every rank calls this. The run as it is now.

    `ema` has `shadow` (parameter name -> tensor), `num_updates` and `config`. Whole, it is None on all ranks but the
    first, and takes as much host memory there as the checkpoint will take on disk; `in_parts`, every rank has one, of
    what it has. Wait for the writer first, and there is one at a time.
    """
    copies = copies or HostCopies(keeps=rank == 0 or in_parts)
    copies.begin()
    adapter = adapter_of(policy)
    weights = saved_weights(policy)
    average = average_by_weight(policy, ema.shadow) if ema is not None else {}
    entries = {name: _entries(optimizer) for name, optimizer in optimizers.items()}
    parts: dict[str, dict[str, Part]] = {}
    if in_parts:
        of_optimizers = {
            key_of(number, entry, of=name): tensor
            for name, tensors in entries.items()
            for (number, entry), tensor in tensors.items()
        }
        kinds = {MODEL: weights, OPTIMIZERS: of_optimizers} | ({AVERAGE: average} if ema is not None else {})
        is_sharded = any(is_in_parts(tensor) for tensor in weights.values())
        for kind, tensors in kinds.items():
            alone = _not_alike(tensors, is_sharded=is_sharded, has_buffers=kind == MODEL)
            own = own_parts(tensors, rank=rank, world_size=record.world_size, of_first=alone)
            parts[kind] = copies.of_parts(own)
        weights, average, entries = {}, {}, {name: {} for name in entries}
    else:
        weights, average = copies.of(weights), copies.of(average)
        entries = {name: copies.of(tensors) for name, tensors in entries.items()}
    if not copies.keeps:
        return None
    copies.arrived()
    return Snapshot(
        record=record,
        weights=weights,
        optimizers={name: _optimizer_state(optimizer, entries[name]) for name, optimizer in optimizers.items()},
        schedules={name: schedule.state_dict() for name, schedule in schedules.items()},
        ema=EmaState(average, ema.num_updates, ema.config) if ema is not None else None,
        scaler=scaler.state_dict() if scaler is not None and scaler.is_enabled() else None,
        rng=rng_state(),
        adapter=dict(adapter.settings) if adapter is not None else None,
        rank=rank,
        parts=parts,
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


def _not_alike(tensors: Mapping[str, torch.Tensor], *, is_sharded: bool, has_buffers: bool) -> set[str]:
    """Tensors that no gradient keeps alike on all ranks: buffers, and under sharding what is left whole."""
    if is_sharded:
        return {name for name, tensor in tensors.items() if not is_in_parts(tensor)}
    return {name for name, tensor in tensors.items() if has_buffers and not isinstance(tensor, torch.nn.Parameter)}


def _entries(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], torch.Tensor]:
    """(parameter number, "exp_avg") -> tensor, in an order that all ranks have."""
    state = optimizer.state_dict()["state"]
    return {
        (number, name): value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number in sorted(state)
        for name, value in sorted(state[number].items())
        if value is not None
    }


def _optimizer_state(
    optimizer: torch.optim.Optimizer, entries: Mapping[tuple[int, str], torch.Tensor]
) -> OptimizerState:
    """The state dict with these copies as its state."""
    copied: dict[int, dict[str, torch.Tensor]] = {}
    for (number, name), tensor in entries.items():
        copied.setdefault(number, {})[name] = tensor
    groups = [
        {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in group.items()}
        for group in portable(optimizer.state_dict())["param_groups"]
    ]
    return {"state": copied, "param_groups": groups}
