"""RA-BC: how much each frame counts as an example, by the progress towards the task that follows it.

A reward model has said of every frame how far along the task it is (0 to 1, a Parquet file beside the dataset). A
frame from which a chunk of actions makes progress counts in full, one from which it makes little counts in part, one
from which things get worse does not count. The numbers are LeRobot's for the same file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.storage import open_storage

PROGRESS_FILE = "sarm_progress.parquet"
HUB_DATASETS = "hf://datasets/"


def find_progress(metadata: DatasetMetadata, path: str | None) -> Path:
    """The local file that `sample_weighting.progress_path` names: a path, a URL, or None for the dataset's own."""
    if path is None:
        if not metadata.storage.exists(PROGRESS_FILE):
            raise ConfigError(
                f"{metadata.repo_id} has no {PROGRESS_FILE}, the progress of its frames. Compute it with a reward "
                "model, or name a file with --sample_weighting.progress_path."
            )
        return metadata.storage.local(PROGRESS_FILE)
    if path.startswith(HUB_DATASETS):
        user, name, *rest = path.removeprefix(HUB_DATASETS).split("/")
        return open_storage(f"{user}/{name}").local("/".join(rest))
    if "://" in path:
        folder, _, file = path.rpartition("/")
        return open_storage("", root=folder).local(file)
    local = Path(path).expanduser()
    if not local.is_file():
        raise ConfigError(f"there is no file {local}. Correct --sample_weighting.progress_path.")
    return local


def read_progress(path: Path, *, column: str, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """(progress, last row of its episode) of every frame of a dataset; NaN and -1 where the file says nothing."""
    file = pq.ParquetFile(path)
    known = file.schema_arrow.names
    missing = [name for name in ("index", "episode_index", column) if name not in known]
    if missing:
        raise DatasetError(f"{path} has no column {missing[0]}. It has: {', '.join(known)}.")
    table = file.read(["index", "episode_index", column])
    index = table["index"].to_numpy().astype(np.int64)
    episode = table["episode_index"].to_numpy().astype(np.int64)
    if len(index) and not (index.min() >= 0 and index.max() < num_frames):
        raise DatasetError(
            f"{path} speaks of frame {index.max()}, the dataset has {num_frames}. It belongs to another dataset, or to "
            "another version of it."
        )
    progress = np.full(num_frames, np.nan)
    progress[index] = table[column].to_numpy().astype(np.float64)
    _, which = np.unique(episode, return_inverse=True)
    last_of_episode = np.zeros(which.max(initial=-1) + 1, np.int64)
    np.maximum.at(last_of_episode, which, index)
    last = np.full(num_frames, -1)
    last[index] = last_of_episode[which]
    return progress, last


def progress_weights(
    progress: np.ndarray, last: np.ndarray, *, chunk: int, kappa: float, epsilon: float, fallback: float = 1.0
) -> np.ndarray:
    """Weight of every frame, float32: by the progress from a frame to `chunk` frames later, or the episode's last."""
    rows = np.arange(len(progress))
    later = np.where(last >= 0, np.minimum(rows + chunk, last), rows)
    gain = progress[later] - progress
    gain[last < 0] = np.nan
    is_known = ~np.isnan(gain)
    mean, spread = 0.0, epsilon
    if is_known.any():
        mean, spread = max(float(gain[is_known].mean()), 0.0), max(float(gain[is_known].std()), epsilon)
    gain = gain.astype(np.float32)
    partly = np.clip((gain - (mean - 2 * spread)) / (4 * spread + epsilon), 0, 1)
    weights = np.where(gain > kappa, 1, np.where(gain >= 0, partly, 0))
    return np.where(is_known, weights, fallback).astype(np.float32)
