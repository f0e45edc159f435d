"""Which parts of a policy are sharded as one unit, and which may forget their activations and compute them again.

Ours declare them by class name. LeRobot's mostly do not, so the default finds what such models are made of: modules
repeated in a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def fsdp_wrap_units(policy: nn.Module) -> list[str]:
    """Names of the submodules to shard one by one, for `policy.get_submodule`; what is left is the root's."""
    declared = set(getattr(policy, "fsdp_wrap_classes", ()) or ()) | set(
        getattr(policy, "_fsdp_wrap_modules", ()) or ()
    )
    if not declared:  # models of the transformers library say which layers must stay whole
        for module in policy.modules():
            declared.update(getattr(module, "_no_split_modules", None) or ())
    found = _outermost(name for name, module in policy.named_modules() if type(module).__name__ in declared)
    return found or _repeated(policy)


def checkpoint_blocks(policy: nn.Module) -> list[str]:
    """Names of the submodules whose forward pass may run twice. Those that count batches (batch norm) are left out."""
    declared = set(getattr(policy, "checkpoint_classes", ()) or ())
    names = _outermost(name for name, module in policy.named_modules() if type(module).__name__ in declared)
    return [name for name in names or fsdp_wrap_units(policy) if not _counts_batches(policy.get_submodule(name))]


def _repeated(policy: nn.Module) -> list[str]:
    """Members of lists and sequences that hold several modules of one class with parameters, the outermost ones."""
    found = []
    for prefix, container in policy.named_modules():
        if not isinstance(container, CONTAINERS):
            continue
        members = {
            name: child
            for name, child in container.named_children()
            if not isinstance(child, CONTAINERS) and any(True for _ in child.children()) and _has_parameters(child)
        }
        counts = Counter(type(child) for child in members.values())
        found += [f"{prefix}.{name}" for name, child in members.items() if counts[type(child)] > 1]
    return _outermost(found)


def _outermost(names: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for name in names:  # named_modules lists a module before what is in it
        if name and not any(name.startswith(f"{outer}.") for outer in kept):
            kept.append(name)
    return kept


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _counts_batches(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) and part.track_running_stats for part in module.modules())
