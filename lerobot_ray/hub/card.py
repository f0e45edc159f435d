"""The page of a policy or dataset on the Hub: front matter that the Hub's search reads, then text for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lerobot_ray.data.metadata import DatasetMetadata

DEFAULT_LICENSE = "apache-2.0"


def dataset_card(metadata: DatasetMetadata, *, license: str = DEFAULT_LICENSE, tags: Sequence[str] = ()) -> str:
    """README.md of a dataset repository."""
    front = {
        "license": license,
        "task_categories": ["robotics"],
        "tags": ["LeRobot", *tags],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    about = {
        "robot": metadata.robot_type or "not said",
        "episodes": f"{metadata.total_episodes:,}",
        "frames": f"{metadata.total_frames:,} at {metadata.fps:g} per second",
        "cameras": ", ".join(metadata.camera_keys) or "none",
        "tasks": _some(metadata.tasks),
    }
    info = json.dumps(dict(metadata.info), indent=4, ensure_ascii=False)
    repo_id, version = metadata.repo_id, metadata.info["codebase_version"]
    return (
        f"{front_matter(front)}\n# {repo_id.split('/')[-1]}\n\n"
        f"A robot dataset in [LeRobot](https://github.com/huggingface/lerobot) format {version}."
        f"\n\n{table(about)}\n\n## Train on it\n\n"
        f"```bash\npython -m lerobot_ray.train --dataset.repo_id={repo_id} --policy.type=act\n```\n\n"
        f"## meta/info.json\n\n```json\n{info}\n```\n"
    )


def front_matter(values: Mapping[str, Any]) -> str:
    """The YAML between two lines of dashes."""
    return f"---\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)}---\n"


def table(rows: Mapping[str, object], head: tuple[str, str] = ("", "")) -> str:
    """A table of two columns."""
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _some(items: Sequence[str], shown: int = 5) -> str:
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return "; ".join(items[:shown]) + rest
