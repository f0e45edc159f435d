"""An untrained ACT that drives PushT's pusher over the middle of the table, in LeRobot's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.registry import build_policy
from lerobot_ray.processing.defaults import make_default_processors


def save_pusht_policy(folder: Path, **sizes: Any) -> Path:
    """The policy, with its processors, saved into `folder`; `sizes` are ACT's settings."""
    config = ACTConfig(**sizes)
    config.input_features = {
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    torch.manual_seed(0)
    build_policy(config).save_pretrained(folder)
    table = {"mean": np.full(2, 256.0), "std": np.full(2, 100.0)}
    picture = {"mean": np.full((3, 1, 1), 0.5), "std": np.full((3, 1, 1), 0.25)}
    stats = {"observation.image": picture, "observation.state": table, "action": table}
    for pipeline in make_default_processors(config, stats, device="cpu"):
        pipeline.save_pretrained(folder)
    return folder
