"""A policy folder brought to life for acting: the policy with its weights, and the processors around it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.config.policy_file import load_policy_config
from lerobot_ray.core.layout import PREPROCESSOR_NAME
from lerobot_ray.policies.registry import build_policy
from lerobot_ray.processing import Pipeline
from lerobot_ray.processing.load import entry_names, read_document
from lerobot_ray.processing.run import load_processors


@dataclass(frozen=True)
class LoadedPolicy:
    """What rollouts call, in this order: `preprocessor`, `policy.select_action`, `postprocessor`."""

    policy: Any
    preprocessor: Pipeline
    postprocessor: Pipeline


def load_policy(
    folder: Path | str, *, config: Any = None, device: str = "cpu", rename_map: Mapping[str, str] | None = None
) -> LoadedPolicy:
    """The policy of a `pretrained_model` folder on `device`, in eval mode.

    `config` replaces the folder's own: the same policy with other settings. `rename_map`: key given -> policy's key.
    """
    config = copy.deepcopy(config) if config is not None else load_policy_config(folder)
    config.pretrained_path, config.pretrained_revision, config.device = str(folder), None, device
    policy = build_policy(config, device=device)
    policy.eval()
    overrides: dict[str, dict[str, Any]] = {"device_processor": {"device": device}}
    if rename_map:
        overrides["rename_observations_processor"] = {"rename_map": dict(rename_map)}
    preprocessor, postprocessor = load_processors(folder, overrides=overrides)
    return LoadedPolicy(policy, preprocessor, postprocessor)


def saved_rename_map(folder: Path | str) -> dict[str, str]:
    """The renaming that a policy folder's preprocessor does by itself."""
    for entry in read_document(Path(folder) / f"{PREPROCESSOR_NAME}.json")["steps"]:
        if "rename_observations_processor" in entry_names(entry):
            return dict((entry.get("config") or {}).get("rename_map") or {})
    return {}
