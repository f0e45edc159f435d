"""Numbers of all ranks made into one: losses averaged, times and memory those of the slowest, the fullest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def gathered(value: Any, world_size: int) -> list[Any]:
    """Collective: every rank calls this. Every rank's value, small and picklable, by rank."""
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values


def combined(by_rank: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One mapping out of all ranks': the largest of names that end in `_s` or `_gb`, the mean of the others."""
    names = {name: None for values in by_rank for name in values}
    result = {}
    for name in names:
        values = [float(rank[name]) for rank in by_rank if name in rank]
        result[name] = max(values) if name.endswith(("_s", "_gb")) else sum(values) / len(values)
    return result
