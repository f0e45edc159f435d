"""Which checkpoints of a run stay: the newest few, every so many steps, the best by a metric; the others are removed.

What each is worth is in `checkpoints/scores.json`, kept over restarts. One process at a time writes it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.core.layout import CHECKPOINTS_DIR

logger = logging.getLogger(__name__)

SCORES_NAME = "scores.json"


def nothing_held(checkpoints: Iterable[Path]) -> set[int]:
    return set()


@dataclass(frozen=True, kw_only=True)
class Retention:
    """A run's rules."""

    keep_last: int | None = None
    keep_every: int | None = None
    keep_best: int = 0
    lower_is_better: bool = True
    held_back: Callable[[Iterable[Path]], set[int]] = nothing_held
    """Steps, of these checkpoints, that must stay for now because somebody is at work with them."""

    def apply(self, run_dir: Path, *, may_remove: Callable[[Path], bool] = lambda _: True) -> None:
        """Remove what no rule keeps. `may_remove` is asked of each; what it says no to is asked again the next time."""
        by_step = {int(path.name): path for path in complete_checkpoints(run_dir)}
        # before the scores: who lets go of a checkpoint has noted its score by then
        keep = self.held_back(by_step.values())
        keep |= self.kept(run_dir, by_step)
        for step in sorted(set(by_step) - keep):
            if not may_remove(by_step[step]):
                continue
            remove_checkpoint(by_step[step])
            logger.info("removed the checkpoint of step %d, as keep_last and keep_every ask", step)

    def kept(self, run_dir: Path, steps: Iterable[int]) -> set[int]:
        """Of these steps, those that the rules keep."""
        return steps_to_keep(
            list(steps),
            keep_last=self.keep_last,
            keep_every=self.keep_every,
            keep_best=self.keep_best,
            scores=read_scores(run_dir),
            lower_is_better=self.lower_is_better,
        )


def note_score(run_dir: Path, step: int, value: float) -> None:
    """What the checkpoint of `step` is worth, now or later."""
    path = run_dir / CHECKPOINTS_DIR / SCORES_NAME
    scores = {**read_scores(run_dir), step: value}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{SCORES_NAME}")
    fresh.write_text(json.dumps({str(step): scores[step] for step in sorted(scores)}, indent=4))
    os.replace(fresh, path)


def read_scores(run_dir: Path) -> dict[int, float]:
    try:
        scores = json.loads((run_dir / CHECKPOINTS_DIR / SCORES_NAME).read_text())
    except FileNotFoundError:
        return {}
    return {int(step): float(value) for step, value in scores.items()}


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
