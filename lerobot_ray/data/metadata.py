"""What a dataset says about itself: info.json, tasks, the episode table and, when asked for, the statistics.

Opening reads a few columns and checks what the format promises by position (row i of the tables is episode i, task i);
a broken promise is an error here, on the driver, instead of a wrong frame later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import DATA_TEMPLATE, INFO_PATH, STATS_PATH, TASKS_PATH, VIDEO_TEMPLATE
from lerobot_ray.core.types import INDEX_FEATURES, Stats
from lerobot_ray.data.episode_table import EpisodeTable, VideoPlaces, read_episodes, read_parquet
from lerobot_ray.data.features import FeatureSpec, describe_changes, fingerprint_of_features, parse_feature
from lerobot_ray.data.info import read_info, read_json
from lerobot_ray.data.storage import Storage, open_storage

__all__ = [
    "DatasetMetadata",
    "EpisodeTable",
    "FeatureSpec",
    "VideoPlaces",
    "check_files",
    "check_same_features",
    "features_fingerprint",
    "open_metadata",
    "read_tasks",
    "stats_of_samples",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetMetadata:
    """Everything about a dataset except its frames. Immutable, columnar and picklable: decode actors get a copy."""

    repo_id: str
    storage: Storage
    info: Mapping[str, Any]
    fps: int
    features: dict[str, FeatureSpec]
    episodes: EpisodeTable
    tasks: list[str]

    @property
    def total_episodes(self) -> int:
        return len(self.episodes)

    @property
    def total_frames(self) -> int:
        return self.episodes.num_frames

    @property
    def robot_type(self) -> str | None:
        return self.info.get("robot_type")

    @property
    def camera_keys(self) -> list[str]:
        return [name for name, spec in self.features.items() if spec.is_camera]

    @property
    def video_keys(self) -> list[str]:
        return [name for name, spec in self.features.items() if spec.is_video]

    @property
    def image_keys(self) -> list[str]:
        return [name for name, spec in self.features.items() if spec.is_image]

    @property
    def depth_keys(self) -> list[str]:
        return [name for name, spec in self.features.items() if spec.is_depth]

    def data_path(self, chunk: int, file: int) -> str:
        """Relative path of a data file."""
        template = self.info.get("data_path") or DATA_TEMPLATE
        return self._fill(template, "data_path", chunk_index=int(chunk), file_index=int(file))

    def video_path(self, key: str, chunk: int, file: int) -> str:
        """Relative path of a video file of camera `key`."""
        template = self.info.get("video_path") or VIDEO_TEMPLATE
        return self._fill(template, "video_path", video_key=key, chunk_index=int(chunk), file_index=int(file))

    def _fill(self, template: str, key: str, **values: Any) -> str:
        try:
            return template.format(**values)
        except (KeyError, IndexError, ValueError) as error:
            raise DatasetError(
                f"{self.repo_id}: {key} in {INFO_PATH} is {template!r}, which is not of v3.0."
            ) from error

    @cached_property
    def stats(self) -> Stats | None:
        """Statistics of the whole dataset as stored, read on first use; None when there is no stats.json."""
        return _read_stats(self.storage, self.repo_id)


def open_metadata(
    repo_id: str, *, root: str | Path | None = None, revision: str | None = None, storage: Storage | None = None
) -> DatasetMetadata:
    """The metadata of a dataset. Seconds for 100 000 episodes: statistics and frames are left on disk."""
    storage = storage if storage is not None else open_storage(repo_id, root=root, revision=revision)
    repo_id = repo_id or storage.identity()
    info = read_info(storage, repo_id)
    features = {
        name: parse_feature(name, entry, where=f"{repo_id}: {INFO_PATH}") for name, entry in info["features"].items()
    }
    missing = [name for name in INDEX_FEATURES if name not in features]
    if missing:
        raise DatasetError(f"{repo_id}: {INFO_PATH} has no feature {missing[0]}, which every v3.0 dataset ends with.")
    video_keys = [name for name, spec in features.items() if spec.is_video]
    episodes = read_episodes(storage, video_keys=video_keys, where=repo_id)
    tasks = read_tasks(storage, repo_id)
    _check_totals(info, episodes, tasks, repo_id)
    return DatasetMetadata(
        repo_id=repo_id,
        storage=storage,
        info=info,
        fps=info["fps"],
        features=features,
        episodes=episodes,
        tasks=tasks,
    )


def features_fingerprint(metadata: DatasetMetadata) -> dict[str, Any]:
    """What a checkpoint remembers of a dataset's features, as plain JSON."""
    return fingerprint_of_features(metadata.features, metadata.fps)


def check_same_features(saved: Mapping[str, Any], metadata: DatasetMetadata) -> None:
    """Refuse to go on with a checkpoint when the features it was trained on have changed."""
    changes = describe_changes(saved, features_fingerprint(metadata))
    if changes:
        raise DatasetError(
            f"{metadata.repo_id}: features changed since the checkpoint was written: {'; '.join(changes)}. Go on with "
            "the dataset as it was (dataset.revision), or start a new run."
        )


def stats_of_samples(metadata: DatasetMetadata, *, depth_output_unit: str = "mm") -> Stats | None:
    """The statistics in the units that samples have: stored ones, with depth cameras in `depth_output_unit`."""
    if metadata.stats is None:
        return None
    stats = dict(metadata.stats)
    for key in metadata.depth_keys:
        recorded = metadata.features[key].info.get("depth_unit", "mm")
        if key in stats and recorded != depth_output_unit:
            scale = 1000.0 if recorded == "m" else 0.001
            stats[key] = {name: value if name == "count" else value * scale for name, value in stats[key].items()}
    return stats


def check_files(metadata: DatasetMetadata, episodes: Sequence[int] | np.ndarray | None = None) -> None:
    """Every data and video file of these episodes (default: all) is there; the first missing one is named."""
    table = metadata.episodes
    chosen = np.arange(len(table)) if episodes is None else np.asarray(episodes, dtype=np.int64)
    present = set(metadata.storage.glob("data/*/*.parquet"))
    _check_present(
        metadata, present, [metadata.data_path(*at) for at in _places(table.data_chunk, table.data_file, chosen)]
    )
    for key in metadata.video_keys:
        places = table.video[key]
        wanted = [metadata.video_path(key, *at) for at in _places(places.chunk, places.file, chosen)]
        _check_present(metadata, set(metadata.storage.glob(f"videos/{key}/*/*.mp4")), wanted)


def _places(chunk: np.ndarray, file: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.unique(np.stack([chunk[chosen], file[chosen]], axis=1), axis=0)


def _check_present(metadata: DatasetMetadata, present: set[str], wanted: Sequence[str]) -> None:
    # Templates need not follow the usual layout, so a path the listing lacks is asked for by name.
    absent = [path for path in wanted if path not in present and not metadata.storage.exists(path)]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DatasetError(
            f"{metadata.repo_id}: {absent[0]}{more} missing in {metadata.storage.identity()}. Fetch the dataset again, "
            "or choose episodes whose files are there (dataset.episodes)."
        )


def read_tasks(storage: Storage, repo_id: str) -> list[str]:
    """The task strings of a dataset; entry i is task i."""
    if not storage.exists(TASKS_PATH):
        raise DatasetError(f"{repo_id}: {TASKS_PATH} is missing. The copy is incomplete: fetch the dataset again.")
    table = read_parquet(storage.local(TASKS_PATH), TASKS_PATH, None, repo_id)
    label = _task_label_column(table.schema)
    if label is None or "task_index" not in table.schema.names:
        raise DatasetError(f"{repo_id}: {TASKS_PATH} has columns {table.schema.names}; expected task_index and task.")
    numbers = table.column("task_index").to_pylist()
    if numbers != list(range(len(numbers))):
        raise DatasetError(
            f"{repo_id}: task_index in {TASKS_PATH} is not 0, 1, 2, …; row i must be task i. Write the table anew."
        )
    return [str(task) for task in table.column(label).to_pylist()]


def _task_label_column(schema: pa.Schema) -> str | None:
    """The column with the task strings: the pandas index, whatever it is called."""
    pandas_text = (schema.metadata or {}).get(b"pandas")
    index_columns = json.loads(pandas_text).get("index_columns", []) if pandas_text else []
    for name in [*index_columns, "task", "__index_level_0__"]:
        if isinstance(name, str) and name in schema.names and name != "task_index":
            return name
    return None


def _check_totals(info: Mapping[str, Any], episodes: EpisodeTable, tasks: Sequence[str], repo_id: str) -> None:
    for key, count in (("total_episodes", len(episodes)), ("total_frames", episodes.num_frames)):
        if info.get(key, count) != count:
            raise DatasetError(
                f"{repo_id}: {key} in {INFO_PATH} is {info[key]}, the episode table holds {count}. The copy is "
                "incomplete or the recording was not finalized: fetch the dataset again."
            )
    if info.get("total_tasks", len(tasks)) != len(tasks):  # nothing is looked up by this number
        logger.warning("%s: total_tasks is %s, %s holds %d", repo_id, info["total_tasks"], TASKS_PATH, len(tasks))


def _read_stats(storage: Storage, repo_id: str) -> Stats | None:
    if not storage.exists(STATS_PATH):
        return None
    raw = read_json(storage, STATS_PATH, repo_id)
    stats: Stats = {}
    for feature, entries in raw.items():
        stats[feature] = {}
        for name, values in entries.items():
            try:
                array = np.asarray(values, dtype=np.int64 if name == "count" else np.float64)
            except (TypeError, ValueError) as error:
                raise DatasetError(f"{repo_id}: {name} of {feature} in {STATS_PATH} is not numbers.") from error
            if not np.isfinite(array).all():
                raise DatasetError(
                    f"{repo_id}: {name} of {feature} in {STATS_PATH} is not finite. Frames of that feature hold NaN or "
                    "infinity: repair them and compute the statistics again."
                )
            stats[feature][name] = array
    return stats
