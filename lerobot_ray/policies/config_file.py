"""`config.json` of a policy folder: exactly the keys LeRobot's strict parser knows, `type` first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.config.decode import decode
from lerobot_ray.config.encode import encode
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import ConfigError, PolicyError
from lerobot_ray.core.layout import CONFIG_NAME
from lerobot_ray.policies.backbone_weights import is_weights_path
from lerobot_ray.policies.hub import fetch_file


def save_config(config: PolicyConfig, folder: Path) -> None:
    """Writes `config.json` into `folder`."""
    values = encode(config)
    weights = values.get("pretrained_backbone_weights")
    if isinstance(weights, str) and is_weights_path(weights):  # a place on this machine, and no longer needed
        values["pretrained_backbone_weights"] = None
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=4), encoding="utf-8")


def read_config(folder: Path) -> PolicyConfig:
    """The policy config in `folder`. PolicyError names the file and the key that cannot be used."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise PolicyError(f"{path} does not exist: {folder} is not a policy folder.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PolicyError(f"{path} is not JSON ({error}).") from error
    if not isinstance(values, dict) or not isinstance(values.get("type"), str):
        raise PolicyError(f"{path} has no policy type. A policy's config.json begins with a key type, such as act.")
    return decode_config(values, source=str(path))


def decode_config(values: Mapping[str, Any], *, source: str) -> PolicyConfig:
    """A policy config from its JSON values; `source` is what errors call them."""
    try:
        return decode(PolicyConfig, values, origin=Origin(file=source))  # type: ignore[type-abstract]
    except ConfigError as error:
        raise PolicyError(str(error)) from error


def policy_folder(path_or_repo: str | Path, *, revision: str | None = None, **download: Any) -> Path:
    """The local folder of a policy: itself, or the snapshot in the Hub cache once `config.json` is there."""
    local = Path(path_or_repo).expanduser()
    if local.is_dir():
        return local
    if local.exists() or local.is_absolute() or str(path_or_repo).startswith(("./", "../", "~")):
        raise PolicyError(
            f"{path_or_repo} is not a folder. A policy is loaded from the folder that holds {CONFIG_NAME}."
        )
    return fetch_file(str(path_or_repo), CONFIG_NAME, revision=revision, **download).parent
