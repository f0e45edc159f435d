"""An environment that takes its process with it in the episodes it is told of."""

import os

import gymnasium
import numpy as np


class DyingEnv(gymnasium.Env):
    metadata = {"render_modes": []}  # noqa: RUF012
    action_space = gymnasium.spaces.Box(-4, 4, (2,), np.float32)
    observation_space = gymnasium.spaces.Dict(
        agent_pos=gymnasium.spaces.Box(-4, 4, (2,), np.float32),
        environment_state=gymnasium.spaces.Box(-4, 4, (2,), np.float32),
    )

    def __init__(self, deadly_seeds=()):
        self._deadly, self._seed = set(deadly_seeds), None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed = seed
        return self._observed(), {}

    def step(self, action):
        if self._seed in self._deadly:
            os._exit(1)
        return self._observed(), 1.0, False, False, {"is_success": True}

    def _observed(self):
        return {name: np.zeros(2, np.float32) for name in ("agent_pos", "environment_state")}


gymnasium.register("Dying-v0", entry_point=DyingEnv, max_episode_steps=3)
