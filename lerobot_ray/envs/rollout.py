"""Plays episodes: a policy in environments, many at a time, each episode as if it were played alone.

What an episode does follows from its seed, which is the evaluation's seed plus its number. Environments are reset with
it, random draws of the policy come from it, and the policy is asked for one episode at a time, with queues of that
episode's own. So results do not depend on which episodes are played here, in which order, or how many at once: torch
computes one row with the same instructions each time, given the same machine, number of threads and versions.

`batch_policy` asks the policy for all episodes in one call, which an accelerator likes. Episodes then begin together,
and every call has `batch_size` rows, empty ones filled up. Noise of native policies still belongs to the episode. But
a row of a matrix product may be summed in another order than the same row in a smaller product, so that results may
differ in the last bit between batch sizes, and an episode that is decided by a hair may end otherwise. With one batch
size they are the same wherever the kernels treat all rows alike, which torch does not promise. Policies of other
packages draw one block of noise for all rows, so there the grouping does matter.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.core.errors import EnvError
from lerobot_ray.envs.episode import Episode, EpisodeFiles
from lerobot_ray.envs.fit import check_can_act, check_features
from lerobot_ray.envs.hosts import EnvFailed, EnvHost, open_hosts, those_ready
from lerobot_ray.envs.player import Player, Processor
from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.envs.stage import EnvSpec, Moment
from lerobot_ray.policies.protocol import PretrainedPolicy

logger = logging.getLogger(__name__)

MAX_BATCH = 64
ENV_TIMEOUT_S = 120.0


def play(
    env_config: EnvConfig,
    policy: Any,
    preprocessor: Processor,
    postprocessor: Processor,
    *,
    episodes: Sequence[int],
    seed: int = 0,
    batch_size: int = 0,
    use_async_envs: bool = True,
    env_timeout_s: float = ENV_TIMEOUT_S,
    batch_policy: bool = False,
    video_dir: str | Path | None = None,
    videos: int = 0,
    recording: str | Path | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Plays the episodes with these numbers in one task, and returns their results in that order.

    policy: in place on its device. It is put into eval mode; its queues, and random generators of the process, are left
        as they were found or reset.
    batch_size: environments at a time; 0: `default_batch_size`. With `batch_policy`, give one.
    use_async_envs: each environment in a process of its own. Without, a crash of the interpreter or an environment that
        hangs takes everything with it.
    env_timeout_s: how long one reset or step may take. Its episode then counts as failed; the others go on.
    video_dir, videos: episodes numbered below `videos` leave `eval_episode_<number>.mp4` there.
    recording: a folder that gets one part per episode; `record.join_recording` makes a dataset of it.
    on_episode: called in this thread with each result as soon as it is known, in the order in which episodes end.

    Raises EnvError or PolicyError before anything is played when environment and policy do not fit, and whatever the
    policy raises. An environment that fails in an episode makes that episode's `error`.
    """
    _check_episodes(episodes, seed)
    if env_timeout_s <= 0:
        raise EnvError(f"env_timeout_s={env_timeout_s:g} must be above 0.")
    check_can_act(type(policy), getattr(policy.config, "type", type(policy).__name__))
    if batch_policy and not isinstance(policy, PretrainedPolicy):
        logger.warning("%s: noise it draws for a batch depends on how episodes are grouped", type(policy).__name__)
    if hasattr(policy, "eval"):
        policy.eval()
    files = EpisodeFiles(
        fps=env_config.fps,
        video_dir=Path(video_dir) if video_dir is not None else None,
        videos=videos,
        recording=Path(recording) if recording is not None else None,
    )
    rows = batch_size or default_batch_size(len(episodes))
    with _opened(env_config, min(rows, len(episodes)), is_async=use_async_envs, timeout_s=env_timeout_s) as (
        hosts,
        spec,
    ):
        rename = getattr(preprocessor, "step", lambda name: None)("rename_observations_processor")
        check_features(spec, policy.config, rename_map=getattr(rename, "rename_map", None))
        player = Player(policy, preprocessor, postprocessor, env_config.get_env_processors())
        if batch_policy:
            groups = [_Group(hosts, player, spec, rows=rows)]
        else:
            players = [player, *(player.another() for _ in hosts[1:])]
            groups = [_Group([host], player, spec, rows=1) for host, player in zip(hosts, players, strict=True)]
        results: dict[int, EpisodeResult] = {}
        task = env_config.task or env_config.type
        waiting = deque(Episode(number, seed + number, task, spec, files) for number in episodes)
        try:
            for result in _results(groups, waiting):
                results[result.episode] = result
                if on_episode is not None:
                    on_episode(result)
        finally:
            for group in groups:
                group.abandon()
    return [results[number] for number in episodes]


def default_batch_size(num_episodes: int) -> int:
    """Environments at a time, as LeRobot counts: 0.7 per core that this process may use, no more than episodes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(0.7 * cores), MAX_BATCH, num_episodes))


def _check_episodes(episodes: Sequence[int], seed: int) -> None:
    if not episodes:
        raise EnvError("there are no episodes to play; give at least one.")
    if len(set(episodes)) != len(episodes):
        raise EnvError("an episode is to be played twice; it would give the same result.")
    if min(episodes) < 0 or seed < 0:
        raise EnvError(f"episodes are numbered from 0, and the seed is not negative: {min(episodes)}, seed {seed}.")


@contextmanager
def _opened(
    config: EnvConfig, count: int, *, is_async: bool, timeout_s: float
) -> Iterator[tuple[list[EnvHost], EnvSpec]]:
    """So many environments, the first known to build. All are gone after the block, whatever they are doing."""
    hosts = open_hosts(config, count, is_async=is_async, timeout_s=timeout_s)
    try:
        hosts[0].ask_spec()
        those_ready(hosts[:1])
        try:
            spec = hosts[0].answer()
        except EnvFailed as error:
            raise EnvError(str(error)) from error
        yield hosts, spec
    finally:
        for host in hosts:
            host.close()


class _Group:
    """Environments that one player acts in, in step: all begin together, and those that end early wait."""

    def __init__(self, hosts: list[EnvHost], player: Player, spec: EnvSpec, *, rows: int) -> None:
        self._player, self._spec, self._rows, self._all = player, spec, rows, hosts
        self._playing: list[tuple[EnvHost, Episode]] = []
        self.asked: dict[EnvHost, Episode] = {}
        """Environments that owe an answer."""

    def begin(self, waiting: deque[Episode]) -> None:
        """Takes the next episodes, one per environment; none when there are none."""
        episodes = [waiting.popleft() for _ in self._all[: len(waiting)]]
        self._playing = list(zip(self._all, episodes, strict=False))
        if not episodes:
            return
        seeds = [episode.seed for episode in episodes]
        self._player.begin(seeds + seeds[:1] * (self._rows - len(seeds)))
        for host, episode in self._playing:
            host.ask_reset(episode.seed, with_picture=episode.wants_pictures)
            self.asked[host] = episode

    def take_answer(self, host: EnvHost) -> None:
        """The environment's answer goes into its episode."""
        episode = self.asked.pop(host)
        try:
            moment: Moment = host.answer()
        except EnvFailed as error:
            episode.fail(str(error))
        else:
            episode.add(moment)

    def ended(self) -> Iterator[EpisodeResult]:
        """Results of episodes that ended with the last answers."""
        for _, episode in self._playing:
            if episode.has_ended and not episode.is_closed:
                yield episode.close()

    def abandon(self) -> None:
        """Lets go of episodes that have not ended, when playing is stopped by an error."""
        for _, episode in self._playing:
            episode.abandon()

    @property
    def is_done(self) -> bool:
        """Whether all its episodes have ended."""
        return all(episode.has_ended for _, episode in self._playing)

    def act(self) -> None:
        """The next action of every episode that goes on."""
        known = [episode.observation for _, episode in self._playing]
        filling = next(observation for observation in known if observation is not None)
        rows = [observation if observation is not None else filling for observation in known]
        rows += [filling] * (self._rows - len(rows))
        actions = self._player.act(rows, self._spec.prompt)
        for (host, episode), action in zip(self._playing, actions, strict=False):
            if episode.has_ended:
                continue
            if not np.isfinite(action).all():
                episode.fail(f"the policy's action at step {episode.length} is {action.tolist()}")
                continue
            episode.acted(action)
            host.ask_step(action, with_picture=episode.wants_pictures)
            self.asked[host] = episode


def _results(groups: Sequence[_Group], waiting: deque[Episode]) -> Iterator[EpisodeResult]:
    for group in groups:
        group.begin(waiting)
    while True:
        by_host = {host: group for group in groups for host in group.asked}
        if not by_host:
            return
        for host in those_ready(list(by_host)):
            group = by_host[host]
            group.take_answer(host)
            while not group.asked:  # an action that no environment can be given ends its episode at once
                yield from group.ended()
                if group.is_done:
                    group.begin(waiting)
                    break
                group.act()
