"""A policy in the middle of episodes: its queues, its processors, its random numbers, for rows that began together.

Everything an episode's course depends on is in here, so a player of one row plays an episode the same whoever plays
beside it. Weights are shared between the players of a policy.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.types import STREAM_INDEX, TASK, Batch
from lerobot_ray.envs.keys import is_camera
from lerobot_ray.policies.protocol import PretrainedPolicy

STEPS_PER_SEED = 1 << 20
"""Steps of one seed that have noise of their own."""

Processor = Callable[[Any], Any]


class Player:
    """Policy and processors. `begin`, then `act` once per step."""

    def __init__(
        self,
        policy: Any,
        preprocessor: Processor,
        postprocessor: Processor,
        env_processors: tuple[Any, Any] | None = None,
    ) -> None:
        self._parts = (policy, preprocessor, postprocessor, env_processors)
        self._rng: tuple[Any, ...] | None = None

    def another(self) -> Player:
        """A player with queues of its own over the same weights."""
        self._forget()  # what an episode before left behind need not be copied
        policy = self._parts[0]
        shared: dict[int, Any] = {}
        if isinstance(policy, torch.nn.Module):
            shared = {id(tensor): tensor for tensor in (*policy.parameters(), *policy.buffers())}
        try:
            return Player(*copy.deepcopy(self._parts, shared))
        except Exception as error:  # a policy is a stranger's code; what of it cannot be copied is anyone's guess
            raise PolicyError(
                f"{type(policy).__name__} or its processors cannot be copied, which playing several episodes side by "
                f"side needs ({type(error).__name__}: {error}). Play one at a time: --eval.batch_size=1."
            ) from error

    def begin(self, seeds: Sequence[int]) -> None:
        """Episodes with these seeds begin, one per row. Draws from torch's generators follow from the first."""
        self._seeds, self._step = list(seeds), 0
        with self._own_randomness():
            words = np.random.SeedSequence(seeds[0]).generate_state(3, np.uint64)
            random.seed(int(words[0]))
            np.random.seed(int(words[1] & 0xFFFFFFFF))
            torch.manual_seed(int(words[2] >> 1))
            self._forget()

    def _forget(self) -> None:
        for part in (*self._parts[:3], *(self._parts[3] or ())):
            if hasattr(part, "reset"):
                part.reset()

    def act(self, observations: Sequence[Mapping[str, np.ndarray]], prompt: str) -> np.ndarray:
        """The actions (B, A) for the rows' observations."""
        policy, preprocessor, postprocessor, env_processors = self._parts
        batch = to_batch(observations)
        batch[TASK] = [prompt] * len(observations)
        if isinstance(policy, PretrainedPolicy):  # its noise is a function of this
            batch[STREAM_INDEX] = torch.tensor([seed * STEPS_PER_SEED + self._step for seed in self._seeds])
        self._step += 1
        with self._own_randomness(), torch.inference_mode(), _precision(policy):
            if env_processors is not None:
                batch = env_processors[0](batch)
            action = postprocessor(policy.select_action(preprocessor(batch)))
            if env_processors is not None:
                action = env_processors[1](action)
        if not isinstance(action, torch.Tensor) or action.ndim != 2 or len(action) != len(observations):
            shape = list(action.shape) if isinstance(action, torch.Tensor) else type(action).__name__
            raise PolicyError(
                f"{type(policy).__name__}.select_action gave {shape} for {len(observations)} observations."
            )
        return action.float().cpu().numpy()

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """The process's generators are this player's inside, and as they were outside."""
        outside = _generators()
        if self._rng is not None:
            _set_generators(self._rng)
        try:
            yield
        finally:
            self._rng = _generators()
            _set_generators(outside)


def to_batch(observations: Sequence[Mapping[str, np.ndarray]]) -> Batch:
    """What LeRobot's policies are given: cameras as float32 (B, C, H, W) in [0, 1], the rest as float32 (B, …)."""
    batch: Batch = {}
    for key in observations[0]:
        stacked = torch.from_numpy(np.stack([observation[key] for observation in observations]))
        if is_camera(key):
            stacked = stacked.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
        batch[key] = stacked
    return batch


def _precision(policy: Any) -> Any:
    if not getattr(policy.config, "use_amp", False):
        return nullcontext()
    device = next(policy.parameters()).device.type
    return torch.autocast(device)


def _generators() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_generators(state: tuple[Any, ...]) -> None:
    python, legacy, on_cpu, on_cuda = state
    random.setstate(python)
    np.random.set_state(legacy)
    torch.set_rng_state(on_cpu)
    if on_cuda is not None:
        torch.cuda.set_rng_state(on_cuda)
