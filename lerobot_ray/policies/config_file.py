"""Where a policy's folder is, and its `config.json`, with what a policy adds to reading and writing one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.policy_file import find_policy_folder, load_policy_config, save_policy_config
from lerobot_ray.core.errors import ConfigError, PolicyError
from lerobot_ray.core.layout import CONFIG_NAME
from lerobot_ray.policies.backbone_weights import is_weights_path
from lerobot_ray.policies.hub import fetch_file


def save_config(config: PolicyConfig, folder: Path) -> None:
    """Writes `config.json`, which LeRobot's strict parser reads."""
    weights = getattr(config, "pretrained_backbone_weights", None)
    if isinstance(weights, str) and is_weights_path(weights):  # a place on this machine, no longer needed
        config = dataclasses.replace(config, pretrained_backbone_weights=None)  # type: ignore[call-arg]
    save_policy_config(config, folder)


def read_config(folder: Path) -> PolicyConfig:
    """The policy config in `folder`. PolicyError names the file and the key that cannot be used."""
    try:
        return load_policy_config(folder)
    except ConfigError as error:
        raise PolicyError(str(error)) from error


def policy_folder(path_or_repo: str | Path, *, revision: str | None = None, **download: Any) -> Path:
    """The local folder of a policy: itself, that of a checkpoint or run, or the Hub cache's, `config.json` in it."""
    local = Path(path_or_repo).expanduser()
    if local.is_dir():
        return find_policy_folder(local) or local
    if local.exists() or local.is_absolute() or str(path_or_repo).startswith((".", "~")):
        what = "is not a folder" if local.exists() else "does not exist"
        raise PolicyError(f"{path_or_repo} {what}. A policy is loaded from the folder that holds its {CONFIG_NAME}.")
    return fetch_file(str(path_or_repo), CONFIG_NAME, revision=revision, **download).parent
