"""Between a batch and what steps work on: a transition, LeRobot's seven-part dict, with its keys as plain strings.

LeRobot's own steps use an enum whose members equal these strings, so a step written for LeRobot runs here as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import (
    ACTION,
    DONE,
    EPISODE_INDEX,
    INDEX,
    OBSERVATION,
    PAD_SUFFIX,
    REWARD,
    SAMPLE_WEIGHT,
    STREAM_INDEX,
    TASK,
    TASK_INDEX,
    TIMESTAMP,
    TRUNCATED,
    VALID_ACTIONS,
    Batch,
)

Transition = dict[str, Any]
"""`observation` (dict or None), `action`, `reward`, `done`, `truncated`, `info`, `complementary_data` (dict)."""

INFO = "info"
COMPLEMENTARY = "complementary_data"

LANGUAGE_KEYS = ("language_persistent", "language_events", "messages", "message_streams", "target_message_indices")
OUR_KEYS = (STREAM_INDEX, VALID_ACTIONS, SAMPLE_WEIGHT)
COMPLEMENTARY_KEYS = (TASK, INDEX, TASK_INDEX, EPISODE_INDEX, TIMESTAMP, *LANGUAGE_KEYS, *OUR_KEYS)
"""What passes a pipeline besides observations, actions, rewards and masks. Anything else of a batch is dropped."""


def batch_to_transition(batch: Mapping[str, Any]) -> Transition:
    """The transition of a batch. Keys that no part has a place for (`frame_index`, free columns) are left behind."""
    action = batch.get(ACTION)
    if action is not None and not isinstance(action, Tensor):
        raise ProcessorError(f"batch[{ACTION!r}] is a {type(action).__name__}; the pipeline needs a torch tensor.")
    complementary = {key: value for key, value in batch.items() if PAD_SUFFIX in key}
    complementary.update((key, batch[key]) for key in COMPLEMENTARY_KEYS if key in batch)
    observation = {
        key: value for key, value in batch.items() if key.startswith(f"{OBSERVATION}.") and key not in complementary
    }
    return {
        "observation": observation or None,
        "action": action,
        "reward": batch.get(REWARD, 0.0),
        "done": batch.get(DONE, False),
        "truncated": batch.get(TRUNCATED, False),
        INFO: batch.get(INFO, {}),
        COMPLEMENTARY: complementary,
    }


def transition_to_batch(transition: Mapping[str, Any]) -> Batch:
    """The batch of a transition: flat again, observations last, as LeRobot orders it."""
    return {
        ACTION: transition.get("action"),
        REWARD: transition.get("reward", 0.0),
        DONE: transition.get("done", False),
        TRUNCATED: transition.get("truncated", False),
        INFO: transition.get(INFO, {}),
        **(transition.get(COMPLEMENTARY) or {}),
        **(transition.get("observation") or {}),
    }


def action_to_transition(action: Tensor) -> Transition:
    """A transition that holds an action alone: what a postprocessor works on."""
    return {
        "observation": None,
        "action": action,
        "reward": 0.0,
        "done": False,
        "truncated": False,
        INFO: {},
        COMPLEMENTARY: {},
    }


def first_tensor_device(transition: Mapping[str, Any]) -> torch.device | None:
    """Where the transition's data is, seen from its first tensor; None when it holds none."""
    for value in ({**(transition.get("observation") or {})} | {ACTION: transition.get("action")}).values():
        if isinstance(value, Tensor):
            return value.device
    return None
