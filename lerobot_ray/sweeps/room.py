"""How many trials a cluster holds at once, each with all it needs, so that none waits for what another will not give.

A trial is training processes and, beside each, at least one decode actor; what drives them reserves nothing. Started
one more than fits, two trials would each hold half of what they need and wait for ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lerobot_ray.core.errors import ConfigError

DECODER = {"CPU": 1.0}
MOST = 4096


@dataclass(frozen=True)
class TrialNeeds:
    """Pieces that must find a place each."""

    workers: int
    per_worker: Mapping[str, float]
    decoders: int
    """Of all its workers together, at least."""
    rollouts: int = 0
    per_rollout: Mapping[str, float] | None = None

    def pieces(self) -> list[Mapping[str, float]]:
        """Largest first."""
        return [
            *([self.per_worker] * self.workers),
            *([self.per_rollout or DECODER] * self.rollouts),
            *([DECODER] * self.decoders),
        ]

    def __str__(self) -> str:
        parts = [f"{self.workers} × ({_amounts(self.per_worker)})", f"{self.decoders} CPU for decoding"]
        if self.rollouts:
            parts.append(f"{self.rollouts} × ({_amounts(self.per_rollout or DECODER)}) for rollouts")
        return ", ".join(parts)


def trials_that_fit(needs: TrialNeeds, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials find a place for every piece at once."""
    free = [dict(node) for node in nodes]
    count = 0
    while count < MOST and _placed(needs.pieces(), free):
        count += 1
    return count


def _placed(pieces: Sequence[Mapping[str, float]], free: list[dict[str, float]]) -> bool:
    for piece in pieces:
        for node in free:
            if all(node.get(name, 0.0) + 1e-9 >= amount for name, amount in piece.items()):
                for name, amount in piece.items():
                    node[name] = node.get(name, 0.0) - amount
                break
        else:
            return False
    return any(amount > 0 for piece in pieces for amount in piece.values())


def concurrency(
    needs: TrialNeeds, nodes: Sequence[Mapping[str, float]], *, asked: int | None, is_here: bool, may_grow: bool = False
) -> int:
    """Trials at once. ConfigError when more are asked for than fit, or when not even one does.

    `is_here`: a Ray that this sweep starts on its own machine, whose CPUs are shared with decoding and rollouts.
    """
    fits = trials_that_fit(needs, nodes)
    most = fits
    if is_here:
        on_cpus = all(name == "CPU" for name in needs.per_rollout or DECODER)
        alone = dataclasses.replace(needs, decoders=0, rollouts=0 if on_cpus else needs.rollouts)
        most = max(fits, trials_that_fit(alone, nodes))
        fits = fits or min(1, most)
        if not most and all(name == "CPU" for name in needs.per_worker):  # one trial may be slow, but may be
            fits = most = 1
    if may_grow:
        return asked or max(1, fits)
    where = "this machine" if is_here else "the cluster"
    holds = f"{where} has {_amounts(_total(nodes))} on {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}"
    if most == 0:
        raise ConfigError(
            f"not even one trial fits: it needs {needs}, and {holds}. Lower --ray.num_workers, "
            "--ray.resources_per_worker or --num_workers."
        )
    if asked is not None and asked > most:
        raise ConfigError(
            f"max_concurrent={asked}, but {most} fit at once: a trial needs {needs}, and {holds}. Lower "
            "max_concurrent, or what a trial takes (resources_per_trial)."
        )
    return asked or fits


def decoders_each(needs: TrialNeeds, nodes: Sequence[Mapping[str, float]], at_once: int) -> int:
    """Decode actors for each training process: the CPUs that all trials together leave, shared out."""
    total = sum(node.get("CPU", 0.0) for node in nodes)
    taken = at_once * (
        needs.workers * needs.per_worker.get("CPU", 0.0)
        + needs.rollouts * (needs.per_rollout or DECODER).get("CPU", 0.0)
    )
    return max(1, int((total - taken) / max(1, at_once * needs.workers) + 1e-9))


def _total(nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in ("CPU", "GPU") if any(node.get(name) for node in nodes)]
    return {name: sum(node.get(name, 0.0) for node in nodes) for name in names}


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items()) or "nothing"
