"""One rollout actor: holds a policy and plays the episodes it is given, a portion at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.envs.result import EpisodeResult


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicySource:
    """Where an actor finds a policy. Picklable."""

    folder: Path
    """A `pretrained_model` folder that every node sees."""
    config: Any = None
    """In place of the folder's own, with settings of a command line applied."""
    rename_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Portion:
    """Episodes of one task that an actor plays in one go."""

    evaluation: str
    """Which evaluation it is part of: the name is for messages, too."""
    policy: PolicySource
    env: EnvConfig
    episodes: tuple[int, ...]
    seed: int
    batch_size: int
    use_async_envs: bool
    video_dir: Path | None = None
    videos: int = 0
    recording: Path | None = None


class RolloutActor:
    """The actor itself. It posts every episode to `inbox` as soon as that is over, and returns them all."""

    def __init__(self, device: str, inbox: Any, *, gives_way: bool = False) -> None:
        """`gives_way`: other processes of the machine go first where CPUs are few. Environments inherit it."""
        if gives_way and hasattr(os, "SCHED_IDLE"):  # Ray's own niceness leaves little room for more
            with contextlib.suppress(OSError):  # a sandbox without it
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        import torch

        # Ray says how many CPUs are its own; a fixed number, for the order of summing depends on it.
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        self._device, self._inbox = device, inbox
        self._folder: Path | None = None
        self._loaded: Any = None

    def play(self, portion: Portion) -> list[EpisodeResult]:
        """Results in the order of `portion.episodes`."""
        from lerobot_ray.envs.rollout import play

        loaded = self._policy(portion.policy)
        return play(
            portion.env,
            loaded.policy,
            loaded.preprocessor,
            loaded.postprocessor,
            episodes=portion.episodes,
            seed=portion.seed,
            batch_size=portion.batch_size,
            use_async_envs=portion.use_async_envs,
            video_dir=portion.video_dir,
            videos=portion.videos,
            recording=portion.recording,
            on_episode=lambda result: self._inbox.post.remote(portion.evaluation, result),
        )

    def _policy(self, source: PolicySource) -> Any:
        if self._folder != source.folder:
            from lerobot_ray.checkpoint.policy_folder import load_policy

            self._loaded = None  # one policy in memory at a time
            self._loaded = load_policy(
                source.folder, config=source.config, device=self._device, rename_map=source.rename_map
            )
            self._folder = source.folder
        return self._loaded
