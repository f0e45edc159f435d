"""Which checkpoints of a run stay: the newest few, every so many steps, the best by a metric. Pure, then one delete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path


def steps_to_keep(
    steps: Sequence[int],
    *,
    keep_last: int | None = None,
    keep_every: int | None = None,
    keep_best: int = 0,
    scores: Mapping[int, float] | None = None,
    lower_is_better: bool = True,
) -> set[int]:
    """Of the steps that have a checkpoint, those that stay. The newest always stays; without a rule all do."""
    if not steps or (keep_last is None and keep_every is None and not keep_best):
        return set(steps)
    ordered = sorted(steps)
    keep = set(ordered[-max(1, keep_last or 1) :])
    if keep_every:
        keep |= {step for step in ordered if step % keep_every == 0}
    if keep_best:
        scored = [(score, step) for step, score in (scores or {}).items() if step in set(ordered)]
        scored.sort(key=lambda pair: (pair[0] if lower_is_better else -pair[0], -pair[1]))
        keep |= {step for _, step in scored[:keep_best]}
    return keep


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint; renamed first, so that a crash half-way leaves nothing that looks like one."""
    doomed = checkpoint.with_name(f".writing-{checkpoint.name}-removed")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)
