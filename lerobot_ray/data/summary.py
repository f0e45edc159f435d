"""A dataset in a few lines for a terminal, and the same as plain JSON."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.core.types import INDEX_FEATURES
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.preview import component_names
from lerobot_ray.data.preview_page import duration_text, feature_kind
from lerobot_ray.data.stats import QUANTILES, has_stats
from lerobot_ray.data.storage import LocalStorage

BLOCKS = " ▁▂▃▄▅▆▇█"
HISTOGRAM_BINS = 32


def summarise(metadata: DatasetMetadata) -> dict[str, Any]:
    """Everything `summary_text` shows, as plain JSON."""
    lengths = metadata.episodes.length
    stats = metadata.stats
    wanted = [name for name, spec in metadata.features.items() if has_stats(spec)]
    return {
        "repo_id": metadata.repo_id,
        "where": metadata.storage.identity(),
        "robot_type": metadata.robot_type,
        "version": metadata.info.get("codebase_version"),
        "fps": metadata.fps,
        "episodes": metadata.total_episodes,
        "frames": metadata.total_frames,
        "seconds": metadata.total_frames / metadata.fps,
        "bytes": _bytes(metadata),
        "episode_lengths": {
            "min": int(lengths.min(initial=0) if not len(lengths) else lengths.min()),
            "median": float(np.median(lengths)) if len(lengths) else 0.0,
            "max": int(lengths.max(initial=0)),
        },
        "features": {
            name: {"kind": feature_kind(spec), "shape": list(spec.shape), "about": _about(spec)}
            for name, spec in metadata.features.items()
        },
        "tasks": [
            {"task": task, "episodes": number} for task, number in Counter(metadata.episodes.first_task).most_common()
        ],
        "stats": None
        if stats is None
        else {
            "missing": [name for name in wanted if name not in stats],
            "quantiles": all(set(QUANTILES) <= set(stats[name]) for name in wanted if name in stats),
        },
    }


def summary_text(metadata: DatasetMetadata, *, width: int = 100, tasks: int = 5) -> str:
    """The summary for a terminal of `width` columns, with the most frequent `tasks`."""
    about = summarise(metadata)
    head = [about["robot_type"], f"{about['fps']:g} frames per second", f"format {about['version']}"]
    lines = [about["repo_id"], f"{'  ·  '.join(part for part in head if part)}", about["where"], ""]
    sizes = about["bytes"]
    counts = [
        _counted(about["episodes"], "episode"),
        _counted(about["frames"], "frame"),
        duration_text(about["seconds"]),
        _counted(len(about["tasks"]), "task"),
    ]
    if sizes:
        parts = ", ".join(f"{kind} {_size(number)}" for kind, number in sizes.items() if number)
        counts.append(f"{_size(sum(sizes.values()))} ({parts})")
    lines += ["   ".join(counts), "", *_length_lines(metadata, about), "", *_feature_lines(about, width), ""]
    lines += [*_task_lines(about, width, tasks), "", _stats_line(about)]
    return "\n".join(line.rstrip() for line in lines)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def _bytes(metadata: DatasetMetadata) -> dict[str, int] | None:
    """Bytes on disk per kind of file, of a local dataset."""
    if not isinstance(metadata.storage, LocalStorage):
        return None
    root = metadata.storage.root
    return {kind: _folder_bytes(root / kind) for kind in ("data", "videos", "meta")}


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _length_lines(metadata: DatasetMetadata, about: dict[str, Any]) -> list[str]:
    lengths = metadata.episodes.length
    if not len(lengths):
        return ["no episodes"]
    low, median, high = (about["episode_lengths"][name] for name in ("min", "median", "max"))
    typical = f"median {median:g} frames, {duration_text(median / metadata.fps)}"
    if low == high:
        return [f"episodes   all of {low} frames, {duration_text(low / metadata.fps)}"]
    counts, _ = np.histogram(lengths, bins=HISTOGRAM_BINS)
    # An episode must show: any bin that is not empty gets at least the lowest block.
    heights = np.where(counts > 0, np.maximum(1, np.round(counts / counts.max() * 8)), 0).astype(int)
    return [f"episodes   {low} {''.join(BLOCKS[height] for height in heights)} {high} frames   {typical}"]


def _feature_lines(about: dict[str, Any], width: int) -> list[str]:
    rows = [("feature", "kind", "shape", "")]
    for name, entry in about["features"].items():
        if name not in INDEX_FEATURES:
            rows.append((name, entry["kind"], "×".join(map(str, entry["shape"])), entry["about"]))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    room = max(20, width - sum(widths) - 6)
    lines = []
    for row in rows:
        about_it = row[3] if len(row[3]) <= room else row[3][: room - 1] + "…"
        lines.append("  ".join([*(cell.ljust(size) for cell, size in zip(row[:3], widths, strict=True)), about_it]))
    lines.insert(1, "  ".join("─" * size for size in widths))
    return lines


def _about(spec: FeatureSpec) -> str:
    if not spec.is_camera:
        return ", ".join(component_names(spec)) if spec.names else ""
    info = spec.info
    parts = [str(info.get("video.pix_fmt", ""))]
    if "video.g" in info:
        parts.append(f"key frame every {info['video.g']}")
    if "depth_unit" in info:
        parts.append(f"in {info['depth_unit']}")
    return ", ".join(part for part in parts if part)


def _task_lines(about: dict[str, Any], width: int, shown: int) -> list[str]:
    tasks = about["tasks"]
    digits = len(str(tasks[0]["episodes"])) if tasks else 1
    lines = ["tasks, by number of episodes"]
    for entry in tasks[:shown]:
        text = entry["task"] or "(none)"
        room = max(20, width - digits - 4)
        lines.append(f"  {entry['episodes']:>{digits}}  {text if len(text) <= room else text[: room - 1] + '…'}")
    if len(tasks) > shown:
        lines.append(f"  … and {len(tasks) - shown} more")
    return lines


def _stats_line(about: dict[str, Any]) -> str:
    stats = about["stats"]
    if stats is None:
        return "statistics  none: python -m lerobot_ray.dataset stats --write"
    if stats["missing"]:
        return f"statistics  none for {', '.join(stats['missing'])}"
    return "statistics  for every feature" + (", with quantiles" if stats["quantiles"] else ", without quantiles")
