"""One evaluation on Ray: a policy, an environment, so many episodes; cut into portions, gathered into one result.

Episodes have seeds of their own, so neither the cut nor the number of actors shows in the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.envs.eval_info import eval_info
from lerobot_ray.envs.make import tasks_of
from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.on_ray.rollout_actor import PolicySource, Portion
from lerobot_ray.on_ray.rollout_pool import News

PORTIONS_PER_ACTOR = 4
"""So that actors that are faster, or begin earlier, play more."""
DEFAULT_RESOURCES = {"CPU": 1.0}


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What is to be played."""

    name: str
    policy: PolicySource
    env: EnvConfig
    eval: EvalConfig
    seed: int
    num_actors: int
    video_dir: Path
    recording_dir: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    """Goes into the result: policy, step, …"""


def resources_of(config: EvalConfig) -> dict[str, float]:
    """What a rollout actor reserves."""
    return dict(config.resources_per_actor or DEFAULT_RESOURCES)


def cpus_of_rollouts(config: EvalConfig) -> float:
    """What all rollout actors reserve together."""
    return config.num_actors * resources_of(config).get("CPU", 0.0)


def task_folder(env: EnvConfig, number: int) -> str:
    """Where files of a task go, as LeRobot names it."""
    return f"{env.type}_{number}"


def portions(plan: EvaluationPlan) -> list[Portion]:
    """The whole evaluation, task by task."""
    rows = plan.eval.batch_size or 2 * max(1, int(resources_of(plan.eval).get("CPU", 1)))
    tasks = tasks_of(plan.env)
    size = max(rows, math.ceil(len(tasks) * plan.eval.n_episodes / (PORTIONS_PER_ACTOR * plan.num_actors)))
    found = []
    for number, env in enumerate(tasks):
        folder = task_folder(env, number)
        for first in range(0, plan.eval.n_episodes, size):
            episodes = tuple(range(first, min(first + size, plan.eval.n_episodes)))
            portion = Portion(
                evaluation=plan.name,
                policy=plan.policy,
                env=env,
                episodes=episodes,
                seed=plan.seed,
                batch_size=min(rows, len(episodes)),
                use_async_envs=plan.eval.use_async_envs,
                video_dir=plan.video_dir / folder,
                videos=plan.eval.videos,
                recording=plan.recording_dir / folder if plan.recording_dir else None,
            )
            found.append(portion)
    return found


class Evaluation:
    """Gathers what a pool reports of one plan."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self.plan = plan
        self.error: BaseException | None = None
        self._results: dict[tuple[str, int], EpisodeResult] = {}
        self._tasks = [env.task or env.type for env in tasks_of(plan.env)]
        self._began_s = time.monotonic()
        self._began_unix_s = time.time()
        self._seconds = 0.0

    @property
    def num_episodes(self) -> int:
        return len(self._tasks) * self.plan.eval.n_episodes

    @property
    def num_done(self) -> int:
        return len(self._results)

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.num_done == self.num_episodes

    def add(self, news: News) -> None:
        self.error = self.error or news.error
        self._results.update({(result.task, result.episode): result for result in news.results})
        self._seconds = time.monotonic() - self._began_s

    def info(self) -> dict[str, Any]:
        """The result as `eval_info.json` holds it, episodes in order."""
        places = [(task, episode) for task in self._tasks for episode in range(self.plan.eval.n_episodes)]
        return eval_info(
            [self._results[place] for place in places],
            env_type=self.plan.env.type,
            seconds=self._seconds,
            about={
                "name": self.plan.name,
                "env": self.plan.env.type,
                "seed": self.plan.seed,
                "actors": self.plan.num_actors,
                "began_s": round(self._began_unix_s, 3),
                **self.plan.about,
            },
        )
