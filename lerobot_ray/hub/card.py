"""The page of a policy or dataset on the Hub: front matter that the Hub's search reads, then text for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from lerobot_ray import __version__
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.data.metadata import DatasetMetadata

DEFAULT_LICENSE = "apache-2.0"
BASE_MODELS = {
    "smolvla": "lerobot/smolvla_base",
    "pi0": "lerobot/pi0_base",
    "pi05": "lerobot/pi05_base",
    "pi0_fast": "lerobot/pi0fast-base",
    "xvla": "lerobot/xvla-base",
}
"""Policy type -> what LeRobot's cards name as its origin."""


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


@dataclass(frozen=True, kw_only=True)
class TrainedAs:
    """What a config does not say about a training run."""

    step: int
    global_batch: int
    world_size: int
    losses: Mapping[str, float] = field(default_factory=dict)
    """Name -> last value."""
    picture: str = ""
    """Name of the file with the loss curve, beside the card."""
    is_average: bool = False
    """The weights are the moving average (EMA), not the last ones."""


def model_card(config: TrainConfig, *, repo_id: str, trained: TrainedAs, metadata: DatasetMetadata | None) -> str:
    """README.md of a policy repository. `metadata` is the dataset's, if it can be read here."""
    policy: Any = config.policy
    parts = [
        front_matter(_front(config)),
        f"# {repo_id.split('/')[-1]}\n",
        f"A robot policy of type **{policy.type}**, trained with [lerobot_ray](https://pypi.org/project/lerobot-ray/) "
        f"{__version__} and loadable with [LeRobot](https://github.com/huggingface/lerobot)."
        + (" Its weights are the moving average of those trained." if trained.is_average else "")
        + "\n",
        "## In and out\n",
        table(
            {
                **{f"`{key}`": _feature(feature) for key, feature in (policy.input_features or {}).items()},
                **{f"`{key}` (out)": _feature(feature) for key, feature in (policy.output_features or {}).items()},
            },
            ("feature", "what it is"),
        ),
        "\n## Data\n",
        table(_data_rows(config, metadata)),
        "\n## Training\n",
        table(_training_rows(config, trained)),
    ]
    if trained.picture:
        parts.append(f"\n![Loss over training steps]({trained.picture})")
    parts.append(_usage(config, repo_id))
    return "\n".join(parts)


def _front(config: TrainConfig) -> dict[str, Any]:
    policy: Any = config.policy
    front: dict[str, Any] = {
        "license": policy.license or DEFAULT_LICENSE,
        "library_name": "lerobot",
        "pipeline_tag": "robotics",
        "model_name": policy.type,
        "tags": list(dict.fromkeys(["robotics", "lerobot", policy.type, *(policy.tags or [])])),
        "datasets": [config.dataset.repo_id],
    }
    if policy.type in BASE_MODELS:
        front["base_model"] = BASE_MODELS[policy.type]
    return front


def _feature(feature: Any) -> str:
    kind = getattr(feature.type, "value", feature.type)
    return f"{str(kind).lower()}, {' × '.join(map(str, feature.shape)) or 'a scalar'}"


def _data_rows(config: TrainConfig, metadata: DatasetMetadata | None) -> dict[str, object]:
    rows: dict[str, object] = {"dataset": config.dataset.repo_id}
    if config.dataset.revision:
        rows["revision"] = config.dataset.revision
    if metadata is not None:
        rows |= {
            "robot": metadata.robot_type or "not said",
            "episodes": f"{metadata.total_episodes:,}"
            + (f", {len(config.dataset.episodes):,} of them used" if config.dataset.episodes else ""),
            "frames": f"{metadata.total_frames:,} at {metadata.fps:g} per second",
            "cameras": ", ".join(metadata.camera_keys) or "none",
            "tasks": _some(metadata.tasks),
        }
    if config.dataset.eval_split:
        rows["held out"] = f"{config.dataset.eval_split:.0%} of the episodes"
    return rows


def _training_rows(config: TrainConfig, trained: TrainedAs) -> dict[str, object]:
    optimizer: Any = config.optimizer
    samples = trained.step * trained.global_batch
    rows: dict[str, object] = {
        "steps": f"{trained.step:,}",
        "batch": f"{trained.global_batch} samples on {trained.world_size} worker{'s' * (trained.world_size != 1)}",
        "samples seen": f"{samples:,}",
        "optimizer": f"{optimizer.type}, learning rate {optimizer.lr:g}" if optimizer is not None else "",
        "schedule": config.scheduler.type if config.scheduler is not None else "constant",
        "seed": config.seed if config.seed is not None else 0,
        **{f"last {name}": f"{value:.4g}" for name, value in trained.losses.items()},
    }
    if config.peft is not None:
        rows["adapter"] = f"{config.peft.method_type}, rank {config.peft.r}"
    return {name: value for name, value in rows.items() if value != ""}


def _usage(config: TrainConfig, repo_id: str) -> str:
    policy: Any = config.policy
    module = f"lerobot.policies.{policy.type}.modeling_{policy.type}"
    name = {"act": "ACTPolicy", "diffusion": "DiffusionPolicy"}.get(policy.type)
    load = (
        f"from {module} import {name}\n\npolicy = {name}.from_pretrained({repo_id!r})"
        if name and config.peft is None
        else f"from lerobot_ray.policies.registry import policy_class\n\n"
        f"policy = policy_class({policy.type!r}).from_pretrained({repo_id!r})"
    )
    return (
        f"\n## Run it\n\nOn a robot, with LeRobot:\n\n```bash\nlerobot-record --robot.type=... --dataset.repo_id=... "
        f"--policy.path={repo_id}\n```\n\nIn Python:\n\n```python\n{load}\n```\n\n"
        f"Train it further:\n\n```bash\npython -m lerobot_ray.train --policy.path={repo_id} "
        f"--dataset.repo_id={config.dataset.repo_id}\n```\n"
    )
