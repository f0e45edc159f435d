"""Values of a trial as the flags a person would type, and the training run they make of the flags all trials share."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot_ray.config.encode import encode
from lerobot_ray.config.flags import read, read_flags
from lerobot_ray.config.parse import build, gather, parse_train_config
from lerobot_ray.config.text import Text
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError

_NOT_A_SETTING = ("output_dir", "resume", "config_path", "job_name", "checkpoint_path")
"""Of a trial, not of what is trained: left out of best.yaml."""


def as_flag(name: str, value: Any) -> str:
    return f"--{name}={as_text(value)}"


def as_text(value: Any) -> str:
    """As typed on a command line: 3e-05, true, null, [1, 2]."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.6g}"
    return json.dumps(value)


def from_hub(repo_id: str, *, revision: str | None, what: Any) -> Path:
    """What a flag names and this machine does not have."""
    from lerobot_ray.hub.elsewhere import fetch

    return fetch(repo_id, revision=revision, what=what)


def trial_config(words: Sequence[str], values: Mapping[str, Any], *, seed: int | None = None) -> TrainConfig:
    """The run of one trial, but for where it writes."""
    own = [as_flag(name, value) for name, value in values.items()]
    if seed is not None:
        own.append(f"--seed={seed}")
    return parse_train_config([*words, *own], fetch=from_hub)


def of_a_trial(config: TrainConfig, *, folder: Path, name: str, decoders: int | None, mlflow_uri: str) -> TrainConfig:
    """The run with what the sweep decides: where it writes, its share of the cluster, nothing pushed."""
    policy: Any = config.policy
    policy.push_to_hub = False
    cache = config.dataset.cache
    return dataclasses.replace(
        config,
        policy=policy,
        output_dir=folder,
        resume="auto",
        job_name=name,
        num_workers=decoders if config.num_workers is None else config.num_workers,
        save_checkpoint_to_hub=False,
        dataset=dataclasses.replace(config.dataset, cache="memory" if cache == "none" else cache),
        mlflow=dataclasses.replace(config.mlflow, tracking_uri=mlflow_uri or config.mlflow.tracking_uri),
    )


def settings_of(words: Sequence[str], values: Mapping[str, Any], *, seed: int | None) -> dict[str, Any]:
    """What was given by flag and file, and the trial's values: a tree for a config file, each value as it was read."""
    own = [as_flag(name, value) for name, value in values.items()]
    settings = gather([*words, *own, *([f"--seed={seed}"] if seed is not None else [])], fetch=from_hub)
    encoded = encode(build(settings))
    tree = {key: _plain(value, encoded.get(key)) for key, value in settings.tree.items() if key not in _NOT_A_SETTING}
    policy = tree.get("policy")
    if isinstance(policy, dict) and policy.get("pretrained_path") and "type" in policy:
        return {**tree, "policy": encoded["policy"]}
    return tree


def _plain(value: Any, encoded: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(encoded, Mapping):
        return {key: _plain(item, encoded.get(key)) for key, item in value.items()}
    if isinstance(value, Text):
        return read(value) if encoded is None else encoded
    return value


def train_command(flags: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "lerobot_ray.train", *flags])


def refuse_swept_flags(words: Sequence[str], names: Sequence[str]) -> None:
    """ConfigError when a flag of all trials is also a parameter."""
    given = {".".join(path) for path in read_flags(words)}
    if both := [name for name in names if name in given]:
        raise ConfigError(f"--{both[0]} is given as a flag and swept too. Leave out the flag, or the parameter.")
