"""Gives values without a batch axis one: what a robot delivers is one observation, what a policy takes is a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lerobot_ray.core.types import (
    INDEX,
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_IMAGES,
    OBS_STATE,
    STREAM_INDEX,
    TASK,
    TASK_INDEX,
)
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import COMPLEMENTARY, Transition

_MESSAGE_KEYS = ("messages", "message_streams", "target_message_indices")


@register_step("to_batch_processor")
class ToBatch(Step):
    """Adds a leading axis where there is none; batched values pass as they are."""

    def __call__(self, transition: Transition) -> Transition:
        observation, action = transition.get("observation"), transition.get("action")
        result = dict(transition)
        if isinstance(action, Tensor) and action.ndim == 1:
            result["action"] = action.unsqueeze(0)
        if observation:
            result["observation"] = {key: _observation(key, value) for key, value in observation.items()}
        if complementary := transition.get(COMPLEMENTARY):
            result[COMPLEMENTARY] = {key: _complementary(key, value) for key, value in complementary.items()}
        return result


def _observation(key: str, value: Any) -> Any:
    is_image = key == OBS_IMAGE or key.startswith(f"{OBS_IMAGES}.")
    unbatched_ndim = 3 if is_image else 1 if key in (OBS_STATE, OBS_ENV_STATE) else None
    return value.unsqueeze(0) if isinstance(value, Tensor) and value.ndim == unbatched_ndim else value


def _complementary(key: str, value: Any) -> Any:
    if key == TASK and isinstance(value, str):
        return [value]
    if key in (INDEX, TASK_INDEX, STREAM_INDEX) and isinstance(value, Tensor) and value.ndim == 0:
        return value.unsqueeze(0)
    if key in _MESSAGE_KEYS and isinstance(value, list) and value and not isinstance(value[0], list):
        return [value]
    return value
