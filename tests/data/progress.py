"""A file of task progress, as a reward model leaves one beside a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.progress import PROGRESS_FILE


def write_progress(root: Path, *, seed: int = 0) -> np.ndarray:
    """Every frame of the dataset at `root`, progress that wanders upwards; the sparse column."""
    episodes = open_metadata("tests/toy", root=root).episodes
    starts = np.asarray(episodes.from_index)
    index = np.arange(episodes.num_frames)
    episode = np.searchsorted(starts, index, side="right") - 1
    steps = np.random.default_rng(seed).normal(0.02, 0.05, len(index))
    progress = np.cumsum(steps).astype(np.float32)
    progress -= progress[starts[episode]]
    table = {"index": index, "episode_index": episode, "frame_index": index - starts[episode]}
    pq.write_table(pa.table({**table, "progress_sparse": progress}), root / PROGRESS_FILE)
    return progress
