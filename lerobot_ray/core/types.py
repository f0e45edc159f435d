"""The types data, policies and processing meet in. They import this, never one another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

Batch = dict[str, Any]
"""What a policy trains on: LeRobot's keys to torch tensors, `task` to a list of str."""

Stats = dict[str, dict[str, Any]]
"""Feature -> statistic ("mean", "std", "min", "max", "q01", …, "count") -> numpy array, shapes as in stats.json."""

OBSERVATION = "observation"
OBS_STATE = "observation.state"
OBS_ENV_STATE = "observation.environment_state"
OBS_IMAGE = "observation.image"
OBS_IMAGES = "observation.images"
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
TRUNCATED = "next.truncated"
TASK = "task"
TASK_INDEX = "task_index"
INDEX = "index"
EPISODE_INDEX = "episode_index"
FRAME_INDEX = "frame_index"
TIMESTAMP = "timestamp"
PAD_SUFFIX = "_is_pad"

STREAM_INDEX = "stream_index"
"""Ours: int64 (B,), each sample's place in the endless training order. Keys noise and augmentation."""

INDEX_FEATURES = (TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, INDEX, TASK_INDEX)
"""The five features every dataset ends with, in this order."""

VALID_ACTIONS = "valid_actions"
"""Ours: float32 (B,), actions of a sample that are not padding, averaged over the step's global batch. A masked loss
divided by it is the same however the batch is split."""

SAMPLE_WEIGHT = "sample_weight"
"""Ours: float32 (B,), how much a sample counts in the loss, 1 on average over the step's global batch."""


class FeatureType(str, Enum):
    """What a policy may do with a feature. The values are what LeRobot writes."""

    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"
    REWARD = "REWARD"
    LANGUAGE = "LANGUAGE"


class NormalizationMode(str, Enum):
    """How a feature is scaled before the policy sees it. The values are what LeRobot writes."""

    MIN_MAX = "MIN_MAX"
    MEAN_STD = "MEAN_STD"
    IDENTITY = "IDENTITY"
    QUANTILES = "QUANTILES"
    QUANTILE10 = "QUANTILE10"


@dataclass
class PolicyFeature:
    """A feature as a policy sees it: its role and its shape without batch or time, cameras as (C, H, W)."""

    type: FeatureType
    shape: tuple[int, ...]
