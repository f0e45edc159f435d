"""Policies that need no training, for tests of what plays them. Module-level, so that they pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lerobot_ray.config.env import ReachEnvConfig
from lerobot_ray.core.types import ACTION, OBS_ENV_STATE, OBS_STATE, FeatureType, PolicyFeature
from lerobot_ray.envs.reach import JOINT_RANGE, ReachState, expert_action

IN_NUMBERS = ReachEnvConfig(obs_type="environment_state_agent_pos")
"""Reach without a camera: quick, and all an expert needs."""


@dataclass
class ActorConfig:
    """As much of a policy's config as an evaluation reads."""

    type: str = "for_tests"
    input_features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            OBS_STATE: PolicyFeature(FeatureType.STATE, (2,)),
            OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (2,)),
        }
    )
    output_features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {ACTION: PolicyFeature(FeatureType.ACTION, (2,))}
    )


class Expert:
    """Knows the arm, and where the target is."""

    def __init__(self) -> None:
        self.config = ActorConfig()

    def reset(self) -> None:
        return

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        states = zip(batch[OBS_STATE].double().numpy(), batch[OBS_ENV_STATE].double().numpy(), strict=True)
        return torch.from_numpy(np.stack([expert_action(ReachState(joints, target)) for joints, target in states]))


class Random(Expert):
    """Any pose, drawn from torch's generator as policies of other packages do."""

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        low, high = torch.tensor(JOINT_RANGE, dtype=torch.float32).T
        return low + (high - low) * torch.rand(len(batch[OBS_STATE]), 2)


class Blind(Random):
    """Random, and reads the state alone."""

    def __init__(self) -> None:
        self.config = ActorConfig(input_features={OBS_STATE: PolicyFeature(FeatureType.STATE, (2,))})


def unchanged(value: Any) -> Any:
    """A processor that does nothing."""
    return value
