"""Which observation of an environment becomes which key of a dataset, and what that makes of its spaces.

Nested observations are named by their path, `pixels/top`; an observation that is no dict is called `observation`. What
the environment's `features_map` does not name follows gym's habits as LeRobot reads them (`agent_pos` is the state,
`pixels` the cameras); what neither names is not for the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from lerobot_ray.config.env import EnvConfig, GymEnvConfig
from lerobot_ray.core.errors import EnvError, nearest
from lerobot_ray.core.types import (
    ACTION,
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_IMAGES,
    OBS_STATE,
    OBSERVATION,
    FeatureType,
    PolicyFeature,
)
from lerobot_ray.envs.make import name_of

RENDER = "render"
"""A `features_map` key for the picture that `env.render()` draws, for environments whose observation has no camera."""
WHOLE = "observation"
"""The key of an observation that is not a dict."""

HABITS = {"agent_pos": OBS_STATE, "environment_state": OBS_ENV_STATE, "pixels": OBS_IMAGE}


def sources(space: gymnasium.Space, config: EnvConfig) -> dict[str, str]:
    """Dataset key -> the environment's key, in the environment's order."""
    leaves = flat_spaces(space)
    wanted = {key: name for key, name in config.features_map.items() if key != ACTION}
    found: dict[str, str] = {}
    for key, leaf in leaves.items():
        habit = _habit(key, leaf)
        name = wanted.get(key) or (habit if habit not in wanted.values() else None)
        if name is not None:
            _take(found, name, key, config)
    if RENDER in wanted:
        _take(found, wanted[RENDER], RENDER, config)
    if isinstance(config, GymEnvConfig):  # the others' maps also name what only some of their variants give
        for key in wanted:
            if key not in leaves and key != RENDER:
                near = nearest(key, leaves)
                raise EnvError(
                    f"env.features_map names {key}, which {name_of(config)} does not give. "
                    + (f"Did you mean {near}? " if near else "")
                    + f"It gives {', '.join(leaves)}; {RENDER} is the picture it draws."
                )
    if not found:
        example = next(iter(leaves))
        raise EnvError(
            f"nothing that {name_of(config)} gives has a dataset key. It gives {', '.join(leaves)}; name them, such as "
            f'--env.features_map=\'{{"{example}": "{OBS_STATE}"}}\'.'
        )
    return found


def flat_spaces(space: gymnasium.Space, prefix: str = "") -> dict[str, gymnasium.Space]:
    """The leaves of an observation space by their path."""
    if not isinstance(space, gymnasium.spaces.Dict):
        return {prefix or WHOLE: space}
    found: dict[str, gymnasium.Space] = {}
    for key, inner in space.spaces.items():
        found |= flat_spaces(inner, f"{prefix}/{key}" if prefix else str(key))
    return found


def value_at(observation: Any, key: str) -> Any:
    """The value of an observation at a path."""
    if not isinstance(observation, Mapping):
        return observation
    for part in key.split("/"):
        observation = observation[part]
    return observation


def feature_of(name: str, shape: tuple[int, ...], dtype: Any, config: EnvConfig) -> PolicyFeature:
    """The feature behind a dataset key: cameras as (C, H, W), the rest as the environment has them."""
    if is_camera(name):
        if np.dtype(dtype) != np.uint8 or len(shape) != 3 or shape[-1] not in (1, 3):
            raise EnvError(
                f"{name} of {name_of(config)} is {np.dtype(dtype)} {list(shape)}; a camera is uint8 (height, width, "
                "channels) with 1 or 3 channels."
            )
        return PolicyFeature(FeatureType.VISUAL, (shape[-1], *shape[:2]))
    if np.dtype(dtype).kind not in "fiub":
        raise EnvError(f"{name} of {name_of(config)} is {np.dtype(dtype)}, not numbers.")
    return PolicyFeature(FeatureType.ENV if name == OBS_ENV_STATE else FeatureType.STATE, tuple(shape))


def is_camera(name: str) -> bool:
    """Whether a dataset key names pixels."""
    return name == OBS_IMAGE or name.startswith((f"{OBS_IMAGES}.", f"{OBS_IMAGE}."))


def _habit(key: str, leaf: gymnasium.Space) -> str | None:
    if key.startswith("pixels/"):
        return f"{OBS_IMAGES}.{key.removeprefix('pixels/')}"
    if key == WHOLE and isinstance(leaf, gymnasium.spaces.Box):
        return OBS_IMAGE if leaf.dtype == np.uint8 and len(leaf.shape) == 3 else OBS_STATE
    return HABITS.get(key)


def _take(found: dict[str, str], name: str, key: str, config: EnvConfig) -> None:
    if not name.startswith(f"{OBSERVATION}."):
        raise EnvError(f"env.features_map calls {key} {name}; a dataset key of an observation begins {OBSERVATION}.")
    if name in found:
        raise EnvError(f"env.features_map calls both {found[name]} and {key} of {name_of(config)} {name}.")
    found[name] = key
