"""Which episodes a run trains on and where their samples are: the only place that knows sample ids from global rows.

Samples are counted 0 … N-1 over the selected episodes in storage order, each shortened by `drop_n_last_frames` (the
last frames of an episode anchor no sample, but appear in the windows of earlier ones). Memory is by the episode.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_ray.core.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from lerobot_ray.data.metadata import EpisodeTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Selection:
    """The selected episodes, in storage order. Arrays are int64, one entry per episode unless said otherwise."""

    episodes: np.ndarray
    """Episode numbers in the dataset, ascending."""
    starts: np.ndarray
    """Sample ids: those of the i-th episode are [starts[i], starts[i + 1]). One entry more than episodes."""
    first_row: np.ndarray
    """Global row of the episode's first frame."""
    last_row: np.ndarray
    """Global row of the episode's last frame, dropped ones included: a window may reach it."""
    drop_n_last_frames: int = 0

    @property
    def end_row(self) -> np.ndarray:
        """Global row after the episode's last frame: windows are clamped to [first_row, end_row)."""
        return self.last_row + 1

    @property
    def num_samples(self) -> int:
        return int(self.starts[-1])

    @property
    def num_frames(self) -> int:
        """Frames of the selected episodes, those that anchor no sample included."""
        return int((self.end_row - self.first_row).sum())

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each episode: what `build_order` takes as episode_lengths."""
        return np.diff(self.starts)

    def locate(self, sample_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(position in `episodes`, global row of the anchor) of each sample."""
        sample_ids = np.asarray(sample_ids, dtype=np.int64)
        if sample_ids.size and (sample_ids.min() < 0 or sample_ids.max() >= self.num_samples):
            raise DatasetError(
                f"sample ids run from 0 to {self.num_samples - 1}, asked for {_outside(self, sample_ids)}."
            )
        position = np.searchsorted(self.starts, sample_ids, side="right") - 1
        return position, self.first_row[position] + sample_ids - self.starts[position]

    def fingerprint(self) -> str:
        """Equal for selections of the same samples in the same rows: what a checkpoint stores to refuse another."""
        digest = hashlib.sha256(f"selection 1, {self.drop_n_last_frames}".encode())
        for array in (self.episodes, self.first_row, self.last_row):
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()[:32]


def select_episodes(
    table: EpisodeTable,
    *,
    episodes: Sequence[int] | np.ndarray | None = None,
    exclude_episodes: Sequence[int] | np.ndarray | None = None,
    drop_n_last_frames: int = 0,
) -> Selection:
    """The episodes with these numbers (None: all) but the excluded ones. The order of the list does not matter."""
    if drop_n_last_frames < 0:
        raise DatasetError(f"drop_n_last_frames={drop_n_last_frames} is negative. Use 0 to drop no frames.")
    total = len(table.length)
    chosen = np.arange(total) if episodes is None else _checked(episodes, total)
    if exclude_episodes is not None:
        excluded = _integers(exclude_episodes, "exclude_episodes")
        unknown = np.setdiff1d(excluded, np.arange(total))
        if len(unknown):
            logger.warning("exclude_episodes: no episodes %s in a dataset of %d, ignored", _some(unknown), total)
        chosen = np.setdiff1d(chosen, excluded)
    if not len(chosen):
        raise DatasetError(
            "no episodes are left to train on. Name at least one in dataset.episodes (or leave it out for all), and "
            "exclude fewer in dataset.exclude_episodes."
        )
    lengths = np.asarray(table.length, dtype=np.int64)[chosen]
    samples = np.maximum(lengths - drop_n_last_frames, 0)
    if not samples.any():
        raise DatasetError(
            f"none of the {len(chosen)} selected episodes has more than {drop_n_last_frames} frames, and this policy "
            f"drops the last {drop_n_last_frames} of each, so there is nothing to train on. Use longer episodes, or "
            "a policy that drops fewer."
        )
    if not samples.all():
        short = chosen[samples == 0]
        logger.warning("episodes %s have no more than %d frames and give no sample", _some(short), drop_n_last_frames)
    first_row = np.asarray(table.from_index, dtype=np.int64)[chosen]
    return Selection(
        episodes=chosen.astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(samples)]).astype(np.int64),
        first_row=first_row,
        last_row=first_row + lengths - 1,
        drop_n_last_frames=int(drop_n_last_frames),
    )


def split_episodes(
    table: EpisodeTable, episodes: Selection | Sequence[int] | np.ndarray | None, eval_split: float
) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) episode numbers, ascending.

    Of the n episodes with the same first task, the last ceil(n * eval_split) are held out.
    """
    if not 0 <= eval_split < 1:
        raise ConfigError(f"dataset.eval_split={eval_split} is no fraction of the episodes. Use a value in [0, 1).")
    total = len(table.length)
    if isinstance(episodes, Selection):
        chosen = episodes.episodes
    else:
        chosen = np.arange(total) if episodes is None else _checked(episodes, total)
    held_out = []
    for group in _by_first_task(table, chosen):
        count = math.ceil(len(group) * eval_split)  # in floating point, as LeRobot counts: 7 % of 100 are 8
        held_out.append(group[len(group) - count :])
    held = np.sort(np.concatenate(held_out))
    train = np.setdiff1d(chosen, held)
    if len(held) and not len(train):
        raise DatasetError(
            f"dataset.eval_split={eval_split:g} holds out all {len(chosen)} episodes: of each task at least one is "
            "held out, and no task has two. Set dataset.eval_split=0, or select more episodes of a task."
        )
    return train, held


def held_out_rows(
    table: EpisodeTable,
    episodes: Selection | np.ndarray,
    *,
    max_eval_samples: int = 0,
    task_index: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Global rows to evaluate on, in the order LeRobot evaluates them.

    All frames of the held-out episodes; with `max_eval_samples` > 0 only the first `max(1, cap // tasks)` of each
    task, task by task. `task_index` gives the task numbers of rows (a task may change within an episode), and is
    needed for a cap only.
    """
    numbers = np.sort(episodes.episodes if isinstance(episodes, Selection) else np.asarray(episodes, dtype=np.int64))
    lengths = np.asarray(table.length, dtype=np.int64)[numbers]
    first = np.asarray(table.from_index, dtype=np.int64)[numbers]
    rows = np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    if max_eval_samples <= 0:
        return rows
    if task_index is None:
        raise TypeError("a cap is per task: pass task_index, which gives the task numbers of rows")
    tasks = np.asarray(task_index(rows))
    distinct = np.unique(tasks)
    per_task = max(1, max_eval_samples // max(1, len(distinct)))
    return np.concatenate([rows[:0], *(rows[tasks == task][:per_task] for task in distinct)])


def _by_first_task(table: EpisodeTable, episodes: np.ndarray) -> list[np.ndarray]:
    """The episodes of each first task, ascending."""
    first_task = table.first_task
    numbers: dict[str, int] = {}
    task = np.array([numbers.setdefault(first_task[episode], len(numbers)) for episode in episodes], dtype=np.int64)
    return np.split(episodes[np.argsort(task, kind="stable")], np.cumsum(np.bincount(task))[:-1])


def _checked(episodes: Sequence[int] | np.ndarray, total: int) -> np.ndarray:
    numbers = _integers(episodes, "episodes")
    wrong = numbers[(numbers < 0) | (numbers >= total)]
    if len(wrong):
        raise DatasetError(
            f"dataset.episodes names {_some(wrong)}, and this dataset has {total} episodes. "
            f"Use numbers from 0 to {total - 1}."
        )
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) != len(numbers):
        raise DatasetError(
            f"dataset.episodes names {_some(distinct[counts > 1])} more than once. Name each episode once."
        )
    return distinct


def _integers(numbers: Iterable[Any], name: str) -> np.ndarray:
    array = np.asarray(list(numbers))
    if array.size and array.dtype.kind not in "iu":
        raise DatasetError(
            f"dataset.{name}={array.tolist()!r} is no list of episode numbers. Use whole numbers, such as [0, 3]."
        )
    return array.astype(np.int64)


def _some(numbers: np.ndarray) -> str:
    """The first few, for a message."""
    return ", ".join(map(str, numbers[:5].tolist())) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def _outside(selection: Selection, sample_ids: np.ndarray) -> int:
    return int(sample_ids[(sample_ids < 0) | (sample_ids >= selection.num_samples)].flat[0])
