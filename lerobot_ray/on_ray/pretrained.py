"""The policy a run starts from: where its folder is, and what a base may not be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import PRETRAINED_DIR
from lerobot_ray.hub.elsewhere import fetch, is_fetched


def local_policy(policy: Any) -> Path:
    """The folder of the policy that `pretrained_path` names, fetched if it is on the Hub; checks nothing in it."""
    given = Path(policy.pretrained_path).expanduser()
    if given.exists() or given.is_absolute() or policy.pretrained_path.startswith(("./", "../")):
        return given
    return fetch(policy.pretrained_path, revision=policy.pretrained_revision, what="policy")


def policy_at(policy: Any, folder: Path) -> Any:
    """The same policy config, its weights in a folder."""
    policy = copy.deepcopy(policy)
    policy.pretrained_path, policy.pretrained_revision = str(folder), None
    return policy


def refuse_base_in_checkpoint(base: Path, name: str) -> None:
    """ConfigError for an adapter whose base is inside a checkpoint elsewhere, where no reader of it would look."""
    if is_fetched(base) and base.name == PRETRAINED_DIR:
        raise ConfigError(
            f"the base of an adapter is named by a repository that has it at its root, and {name} has it in a "
            "checkpoint. Publish it first (python -m lerobot_ray.push RUN --publish), or give a local folder."
        )
