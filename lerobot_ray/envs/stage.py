"""One environment, spoken to in dataset keys. What holds it, this process or another, is `hosts` and `process`.

There is no torch here: a process that holds an environment imports this and little else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.core.errors import EnvError, LerobotRayError
from lerobot_ray.core.types import ACTION, FeatureType, PolicyFeature
from lerobot_ray.envs.keys import RENDER, feature_of, flat_spaces, is_camera, sources, value_at
from lerobot_ray.envs.make import build_env, name_of, step_limit


@dataclass(frozen=True)
class EnvSpec:
    """What an environment gives and takes."""

    name: str
    """For messages."""
    features: dict[str, PolicyFeature]
    """Observations by dataset key, cameras as (C, H, W); and `action`."""
    step_limit: int
    prompt: str
    """What the robot is asked to do, in words."""


@dataclass(frozen=True)
class Moment:
    """What an environment answers to a reset or a step."""

    observation: dict[str, np.ndarray]
    """By dataset key: uint8 (H, W, C) or float32."""
    reward: float = 0.0
    ended: bool = False
    success: bool | None = None
    """None: the environment does not say."""
    picture: np.ndarray | None = None
    """uint8 (H, W, 3), where one was asked for and the environment has one."""


class Stage:
    """An environment and its keys."""

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        with _in_our_words(config):
            self._env = build_env(config)
            try:
                self._sources = sources(self._env.observation_space, config)
                self._spec = self._describe()
            except BaseException:
                self._env.close()
                raise
        self._shapes = {name: _as_seen(name, feature.shape) for name, feature in self._spec.features.items()}

    def spec(self) -> EnvSpec:
        return self._spec

    def reset(self, seed: int, with_picture: bool) -> Moment:
        """Begins the episode that `seed` stands for."""
        observation, info = self._env.reset(seed=seed)
        seen = self._seen(observation)
        return Moment(seen, success=_success(info), picture=self._picture(seen) if with_picture else None)

    def step(self, action: np.ndarray, with_picture: bool) -> Moment:
        """One step. `action` is float32, the environment gets its own dtype."""
        space = self._env.action_space
        observation, reward, terminated, truncated, info = self._env.step(action.astype(space.dtype, copy=False))
        seen = self._seen(observation)
        return Moment(
            seen,
            reward=float(reward),
            ended=bool(terminated or truncated),
            success=_success(info),
            picture=self._picture(seen) if with_picture else None,
        )

    def close(self) -> None:
        self._env.close()

    def _describe(self) -> EnvSpec:
        config, env = self._config, self._env
        leaves = flat_spaces(env.observation_space)
        features: dict[str, PolicyFeature] = {}
        for name, key in self._sources.items():
            if key == RENDER:
                picture = self._first_picture()
                features[name] = feature_of(name, picture.shape, picture.dtype, config)
                continue
            shape, dtype = leaves[key].shape, leaves[key].dtype
            if shape is None or dtype is None:
                raise EnvError(f"{key} of {name_of(config)} is a {leaves[key]}, which no dataset key can hold.")
            features[name] = feature_of(name, shape, dtype, config)
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise EnvError(
                f"{name_of(config)} takes actions from {space}. A policy gives a vector of numbers: wrap the "
                "environment so that its action space is a one-dimensional Box."
            )
        features[ACTION] = PolicyFeature(FeatureType.ACTION, tuple(space.shape))
        limit = step_limit(env)
        assert limit is not None, "build_env refuses environments without one"
        return EnvSpec(name=name_of(config), features=features, step_limit=limit, prompt=self._prompt())

    def _first_picture(self) -> np.ndarray:
        self._env.reset(seed=0)
        return self._rendered()

    def _prompt(self) -> str:
        for name in ("task_description", "task"):
            if self._env.has_wrapper_attr(name) and isinstance(words := self._env.get_wrapper_attr(name), str):
                return words
        return self._config.task or ""

    def _seen(self, observation: Any) -> dict[str, np.ndarray]:
        seen = {}
        for name, key in self._sources.items():
            value = self._rendered() if key == RENDER else np.asarray(value_at(observation, key))
            if value.shape != self._shapes[name]:
                raise EnvError(
                    f"{name_of(self._config)} gives {key} of shape {list(value.shape)}, and says it is "
                    f"{list(self._shapes[name])}. It may draw in one size only; leave its size as it is by default."
                )
            # A copy: environments may write the next observation into the array of the one before.
            seen[name] = np.array(value, dtype=np.uint8 if is_camera(name) else np.float32)
        return seen

    def _picture(self, seen: dict[str, np.ndarray]) -> np.ndarray | None:
        """What the environment draws; where it does not, what its first camera sees, or nothing."""
        if self._env.render_mode == "rgb_array":
            return self._rendered()
        cameras = (pixels for name, pixels in seen.items() if is_camera(name))
        return next((np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels for pixels in cameras), None)

    def _rendered(self) -> np.ndarray:
        picture = self._env.render()
        if not isinstance(picture, np.ndarray):
            raise EnvError(
                f"{name_of(self._config)} draws no picture ({type(picture).__name__} from render()). It needs render "
                'mode rgb_array: --env.kwargs=\'{"render_mode": "rgb_array"}\'.'
            )
        return np.array(picture, dtype=np.uint8)


@contextmanager
def _in_our_words(config: EnvConfig) -> Iterator[None]:
    """Whatever goes wrong while an environment is built is an EnvError: it is a stranger's code."""
    try:
        yield
    except LerobotRayError:
        raise
    except Exception as error:  # a library or a display that is missing, a bug
        raise EnvError(f"{name_of(config)} cannot be built ({type(error).__name__}: {error}).") from error


def _as_seen(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0]) if is_camera(name) else shape


def _success(info: dict[str, Any]) -> bool | None:
    for name in ("is_success", "success"):
        if name in info:
            return bool(np.asarray(info[name]).all())
    return None
