"""`config.json` of a policy folder: LeRobot's keys in LeRobot's order, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lerobot_ray.config.decode import decode
from lerobot_ray.config.encode import encode
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.text import read_json
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, CONFIG_NAME, LAST_LINK, PRETRAINED_DIR


def load_policy_config(folder: Path | str) -> PolicyConfig:
    """The policy described by `folder/config.json`. Unknown keys are a ConfigError, missing ones take defaults."""
    path = Path(folder) / CONFIG_NAME
    return decode(PolicyConfig, read_policy_file(path), origin=Origin(file=str(path)))  # type: ignore[type-abstract]


def save_policy_config(policy: PolicyConfig, folder: Path | str) -> Path:
    """Writes `folder/config.json` as LeRobot does: indent 4, no newline at the end."""
    path = Path(folder) / CONFIG_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(encode(policy), indent=4), encoding="utf-8")
    return path


def read_policy_file(path: Path) -> dict[str, Any]:
    """The raw values of a `config.json`."""
    if not path.is_file():
        raise ConfigError(f"{path} is not there. A policy folder holds {CONFIG_NAME} and the weights.")
    raw = read_json(path.read_text(encoding="utf-8"), name=str(path))
    if not isinstance(raw, dict) or "type" not in raw:
        raise ConfigError(f"{path} does not name a policy type. Is it the config.json of a policy folder?")
    return raw


def find_policy_folder(path: Path) -> Path | None:
    """The policy folder that `path` means: itself, that of a checkpoint, or that of a run's last checkpoint."""
    candidates = (path, path / PRETRAINED_DIR, path / CHECKPOINTS_DIR / LAST_LINK / PRETRAINED_DIR)
    return next((folder for folder in candidates if (folder / CONFIG_NAME).is_file()), None)
