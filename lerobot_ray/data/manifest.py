"""The metadata of a dataset being written: info.json, tasks, the episode table, stats.json.

Everything is written into the recording's `ready` folder and becomes the dataset in one commit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from lerobot_ray.core.errors import DatasetError, VersionError
from lerobot_ray.core.layout import (
    DATA_TEMPLATE,
    EPISODES_DIR,
    FORMAT_VERSION,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_TEMPLATE,
    next_file,
)
from lerobot_ray.core.types import EPISODE_INDEX
from lerobot_ray.data.depth import depth_coding
from lerobot_ray.data.disk import publish, read_json, unfinished_name, write_json
from lerobot_ray.data.episode_rows import write_episodes
from lerobot_ray.data.features import parse_feature
from lerobot_ray.data.metadata import read_tasks
from lerobot_ray.data.recording import DATA_KIND, Place, Recording
from lerobot_ray.data.recount import tabular_stats
from lerobot_ray.data.stats import STATISTICS, ValueCounts, as_json, from_json, has_stats, merged_summaries, pixel_unit
from lerobot_ray.data.storage import LocalStorage, Storage

logger = logging.getLogger(__name__)


def new_header(**settings: Any) -> dict[str, Any]:
    """What recording.json says about a new dataset."""
    kinds = [DATA_KIND, *(key for key, entry in settings["features"].items() if entry["dtype"] == "video")]
    return {
        **settings,
        "base": {"episodes": 0, "frames": 0, "tasks": []},
        "first_place": {kind: [0, 0] for kind in kinds},
        "first_episodes_place": [0, 0],
        "info": {},
    }


def header_to_append(root: Path, codec: str) -> dict[str, Any]:
    """What recording.json says when episodes are added to the dataset in `root`."""
    info = read_json(root / INFO_PATH)
    version = str(info.get("codebase_version", ""))
    if not version.startswith("v3."):
        raise VersionError(
            f"{root} is of format {version or 'unknown'}; episodes can be added to {FORMAT_VERSION} only. Convert it "
            "first: python -m lerobot.scripts.convert_dataset_v21_to_v30"
        )
    tables = sorted((root / EPISODES_DIR).glob("*/*.parquet"))
    videos = [key for key, entry in info["features"].items() if entry["dtype"] == "video"]
    columns = [f"videos/{key}/{part}_index" for key in videos for part in ("chunk", "file")]
    known = pa.concat_tables(
        [pq.read_table(path, columns=[EPISODE_INDEX, *columns], partitioning=None) for path in tables]
    )
    if len(known) != info["total_episodes"]:
        raise DatasetError(
            f"{root}: info.json counts {info['total_episodes']} episodes, the episode table has {len(known)}. "
            "Repair it before adding to it; `python -m lerobot_ray.dataset validate` says what is wrong."
        )
    size = int(info.get("chunks_size", 1000))
    last: dict[str, Place] = {DATA_KIND: _last_place(sorted((root / "data").glob("*/*.parquet")))}
    for key in videos:
        places = zip(*(known[f"videos/{key}/{part}_index"].to_pylist() for part in ("chunk", "file")), strict=True)
        last[key] = max(places, default=(0, -1))
    return {
        "repo_id": root.name,
        "fps": int(info["fps"]),
        "features": info["features"],
        "robot_type": info.get("robot_type"),
        "codec": codec,
        "data_files_size_in_mb": info.get("data_files_size_in_mb", 100),
        "video_files_size_in_mb": info.get("video_files_size_in_mb", 200),
        "chunks_size": size,
        "base": {
            "episodes": int(info["total_episodes"]),
            "frames": int(info["total_frames"]),
            "tasks": read_tasks(LocalStorage(root), root.name),
        },
        "first_place": {kind: list(next_file(*place, chunks_size=size)) for kind, place in last.items()},
        "first_episodes_place": list(next_file(*_last_place(tables), chunks_size=size)),
        "info": info,
    }


def _last_place(files: Sequence[Path]) -> Place:
    if not files:
        return 0, -1
    return int(files[-1].parent.name.removeprefix("chunk-")), int(files[-1].stem.removeprefix("file-"))


def finalize(recording: Recording, *, progress: bool | None = None) -> None:
    """Joins what is left, writes the metadata, commits."""
    steps = ("joining files", "counting statistics", "writing metadata", "publishing")
    disable = None if progress is None else not progress  # tqdm: None means only in a terminal
    with tqdm(steps, desc="finalize", unit="step", disable=disable) as bar:
        for step in bar:
            bar.set_postfix_str(step)
            if step == "joining files":
                recording.stage(last=True)
            elif step == "counting statistics":
                stats = _dataset_stats(recording)
            elif step == "writing metadata":
                _write_metadata(recording, stats)
            else:
                recording.commit()


def _write_metadata(recording: Recording, stats: Mapping[str, Any]) -> None:
    ready, header = recording.folder / "ready", recording.header
    tasks = list(header["base"]["tasks"])
    tasks += [t for t in dict.fromkeys(t for d in recording.episodes for t in d["tasks"]) if t not in set(tasks)]
    write_tasks(ready / TASKS_PATH, tasks, durable=recording.durable)
    write_episodes(recording)
    write_json(ready / STATS_PATH, as_json(dict(stats)), durable=recording.durable)
    write_json(ready / INFO_PATH, _info(recording, num_tasks=len(tasks)), durable=recording.durable)


def _info(recording: Recording, *, num_tasks: int) -> dict[str, Any]:
    header = recording.header
    episodes = header["base"]["episodes"] + len(recording.episodes)
    counts = {
        "total_episodes": episodes,
        "total_frames": header["base"]["frames"] + sum(document["length"] for document in recording.episodes),
        "total_tasks": num_tasks,
    }
    fresh = {
        "codebase_version": FORMAT_VERSION,
        "fps": header["fps"],
        "features": _features_with_info(recording),
        **counts,
        "chunks_size": header["chunks_size"],
        "data_files_size_in_mb": header["data_files_size_in_mb"],
        "video_files_size_in_mb": header["video_files_size_in_mb"],
        "data_path": DATA_TEMPLATE,
        "video_path": VIDEO_TEMPLATE if recording.video_keys else None,
        "robot_type": header["robot_type"],
        "splits": {"train": f"0:{episodes}"},
    }
    kept = header["info"]
    return {**fresh, **kept, "features": fresh["features"], **counts, "splits": fresh["splits"]}


def _features_with_info(recording: Recording) -> dict[str, Any]:
    """The feature entries, with what the first episode's files say about its cameras."""
    entries: dict[str, Any] = {}
    first = recording.episodes[0] if recording.episodes else {"video_info": {}, "depth_units": {}}
    for name, entry in recording.header["features"].items():
        spec = parse_feature(name, entry, where="info.json")
        info = dict(entry.get("info") or {})
        if spec.is_depth and name in first["depth_units"]:
            info.setdefault("depth_unit", first["depth_units"][name])
        if name in first["video_info"] and "video.codec" not in info:
            info |= first["video_info"][name]
            info |= depth_coding(info).describe() if spec.is_depth else {"is_depth_map": False}
        entries[name] = {**entry, "info": info} if info else entry
    return entries


def write_tasks(path: Path, tasks: Sequence[str], *, durable: bool = True) -> None:
    """tasks.parquet: the task string is the pandas index, its row number the task's number."""

    def about(name: str, kind: str, dtype: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}

    encoding = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [encoding],
        "columns": [about("task_index", "int64", "int64"), about("task", "unicode", "object")],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(pandas)})
    table = pa.table([list(range(len(tasks))), list(tasks)], schema=schema)
    pq.write_table(table, unfinished_name(path), compression="snappy")
    publish(path, durable=durable)


# Statistics


def pack_counts(counts: Mapping[str, ValueCounts]) -> dict[str, np.ndarray]:
    """Pixel counts of an episode as named arrays."""
    arrays: dict[str, np.ndarray] = {}
    for name, entry in counts.items():
        arrays |= {
            f"{name}:values": entry.values,
            f"{name}:counts": entry.counts,
            f"{name}:frames": np.array(entry.frames),
        }
    return arrays


def _dataset_stats(recording: Recording) -> dict[str, Any]:
    specs = {n: parse_feature(n, entry, where="info.json") for n, entry in recording.header["features"].items()}
    here: Storage = LocalStorage(recording.root)
    ready: Storage = LocalStorage(recording.folder / "ready")
    files = [(storage, path) for storage in (here, ready) for path in storage.glob("data/*/*.parquet")]
    stats: dict[str, Any] = tabular_stats(files, [spec for spec in specs.values() if spec.is_numeric])
    merged: dict[str, ValueCounts] = {}
    for arrays in recording.camera_counts():
        for name in (name for name, spec in specs.items() if spec.is_camera):
            part = ValueCounts(int(arrays[f"{name}:frames"]), arrays[f"{name}:values"], arrays[f"{name}:counts"])
            merged[name] = merged[name].merged(part) if name in merged else part
    before = _stats_before(recording)
    for name, counts in merged.items():
        stats[name] = counts.stats(unit=pixel_unit(specs[name]))
        if name in before:
            stats[name] = merged_summaries([before[name], stats[name]])
    return {
        name: {s: stats[name][s] for s in STATISTICS}
        for name, spec in specs.items()
        if has_stats(spec) and name in stats
    }


def _stats_before(recording: Recording) -> dict[str, Any]:
    """Statistics of the episodes that were there before an append."""
    path = recording.root / STATS_PATH
    if not recording.header["base"]["episodes"]:
        return {}
    if path.is_file():
        stats = from_json(read_json(path))
        return {name: entry for name, entry in stats.items() if set(STATISTICS) <= set(entry)}
    logger.warning(
        "%s has no %s, so camera statistics cover the new episodes only. Count all of them: python -m "
        "lerobot_ray.dataset stats --write",
        recording.root,
        STATS_PATH,
    )
    return {}
