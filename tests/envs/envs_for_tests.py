"""Environments that misbehave, for tests of what plays in them. Importing this registers them with gymnasium."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium
import numpy as np

from lerobot_ray.config.env import GymEnvConfig

STEPS = 5
TROUBLED = "tests.envs.envs_for_tests:lerobot_ray_tests/Troubled-v0"


def troubled(task: str = TROUBLED, **kwargs: Any) -> GymEnvConfig:
    """The config of one of these environments."""
    return GymEnvConfig(task=task, kwargs=kwargs)


class Troubled(gymnasium.Env):
    """Every episode is five steps, but for those whose seeds are given: they raise, end the process, or hang."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium reads a plain dict)

    def __init__(
        self,
        *,
        raises: tuple[int, ...] = (),
        dies: tuple[int, ...] = (),
        hangs: tuple[int, ...] = (),
        dies_in_reset: tuple[int, ...] = (),
        actions: int = 2,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._raises, self._dies, self._hangs, self._dies_in_reset = raises, dies, hangs, dies_in_reset
        self.observation_space = gymnasium.spaces.Dict(
            agent_pos=gymnasium.spaces.Box(-1, 1, (2,), dtype=np.float64),
            inner=gymnasium.spaces.Dict(speed=gymnasium.spaces.Box(-1, 1, (3,), dtype=np.float32)),
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (actions,), dtype=np.float64)
        self._resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self._seed, self._steps = seed, 0
        if seed in self._dies_in_reset:
            os._exit(7)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        assert action.dtype == np.float64
        self._steps += 1
        if self._steps == 3:
            if self._seed in self._raises:
                raise RuntimeError("the gripper is on fire")
            if self._seed in self._dies:
                os.kill(os.getpid(), signal.SIGKILL)
            while self._seed in self._hangs:
                time.sleep(0.1)
        return self._observation(), float(action.sum()), self._steps == STEPS, False, {}

    def render(self) -> np.ndarray:
        return np.full((15, 21, 3), 10 * self._steps, dtype=np.uint8)

    def _observation(self) -> dict[str, Any]:
        return {"agent_pos": self.np_random.uniform(-1, 1, 2), "inner": {"speed": np.zeros(3, dtype=np.float32)}}


class Bad(Troubled):
    """Says one thing about its observation and gives another."""

    def _observation(self) -> dict[str, Any]:
        return {**super()._observation(), "agent_pos": np.zeros(4)}


class Discrete(Troubled):
    """Takes one of three actions."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]


gymnasium.register("lerobot_ray_tests/Troubled-v0", Troubled, max_episode_steps=50)
gymnasium.register("lerobot_ray_tests/Endless-v0", Troubled)
gymnasium.register("lerobot_ray_tests/Bad-v0", Bad, max_episode_steps=50)
gymnasium.register("lerobot_ray_tests/Discrete-v0", Discrete, max_episode_steps=50)
