"""How often each sample was trained on, from the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.data.audit import AUDIT_DIR
from lerobot_ray.data.audit_check import load_audit

MAX_ROWS = 40_000_000
"""More than these would take minutes and gigabytes."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """Counted over the rows that count: steps a restart took back are not in them."""

    uses: np.ndarray
    """How often each sample was used, in storage order."""
    episodes: np.ndarray
    starts: np.ndarray
    """Where each episode's samples begin in `uses`."""
    epochs: tuple[float, ...] | None
    """Per epoch the share of all samples that it has used; None when the run did not say how many samples there are."""
    rows: int
    first_step: int
    end_step: int
    unfinished_rows: int


def ended_epochs(coverage: Coverage) -> tuple[float, ...]:
    """The shares of those epochs the run has come to the end of."""
    epochs = coverage.epochs or ()
    return epochs if epochs and epochs[-1] == 1 else epochs[:-1]


def load_coverage(run_dir: Path, facts: Mapping[str, Any]) -> Coverage | str:
    """The coverage, or a sentence that says why there is none."""
    audit = run_dir / AUDIT_DIR
    if not audit.is_dir():
        return "This run kept no record of its samples. Train with --audit=true to see here how often each was used."
    parts = [str(part) for part in audit.glob("attempt-*/rank-*.parquet")]
    num_rows = ds.dataset(parts, format="parquet").count_rows() if parts else 0
    if num_rows > MAX_ROWS:
        return f"The audit has {num_rows:,} rows, too many for this page. It is one Parquet dataset: {AUDIT_DIR}/."
    try:
        checked = load_audit(run_dir)
    except LerobotRayError as error:
        return f"The audit does not add up: {error}"
    if not len(checked.rows):
        return "The audit has no complete step yet."
    q, episode, frame = (checked.rows[name].to_numpy() for name in ("stream_index", "episode", "frame"))
    episodes, lengths = _episodes(facts, episode, frame)
    starts = np.cumsum(lengths) - lengths
    sample = starts[np.searchsorted(episodes, episode)] + frame
    return Coverage(
        uses=np.bincount(sample, minlength=int(lengths.sum())),
        episodes=episodes,
        starts=starts,
        epochs=_epochs(q, sample, int(facts["num_samples"])) if facts.get("num_samples") else None,
        rows=len(q),
        first_step=checked.first_step,
        end_step=checked.end_step,
        unfinished_rows=checked.unfinished_rows,
    )


def _episodes(facts: Mapping[str, Any], episode: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, samples in each): as the run said, else as far as the rows show them."""
    seen, position = np.unique(episode, return_inverse=True)
    shown = np.zeros(len(seen), dtype=np.int64)
    np.maximum.at(shown, position, frame + 1)
    known = np.array(facts.get("episodes", []), dtype=np.int64)
    episodes = np.union1d(known, seen)
    lengths = np.zeros(len(episodes), dtype=np.int64)
    lengths[np.searchsorted(episodes, known)] = facts.get("episode_samples", [])
    where = np.searchsorted(episodes, seen)
    lengths[where] = np.maximum(lengths[where], shown)
    return episodes, lengths


def _epochs(q: np.ndarray, sample: np.ndarray, num_samples: int) -> tuple[float, ...]:
    """`q` ascends. Different samples, so that one used twice within an epoch does not make up for one left out."""
    first, last = int(q[0]) // num_samples, int(q[-1]) // num_samples
    edges = np.searchsorted(q, np.arange(first, last + 2) * num_samples)
    shares = [len(np.unique(sample[start:end])) / num_samples for start, end in pairwise(edges)]
    return (0.0,) * first + tuple(shares)
