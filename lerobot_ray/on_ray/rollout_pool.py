"""Rollout actors that share out portions of episodes. What an actor had when it died is played again elsewhere.

Polled, never waited for: during training the driver looks in between other things. Actors are started when there is
something to play and let go when there is nothing left, so that an idle pool reserves nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.on_ray.rollout_actor import Portion, RolloutActor

logger = logging.getLogger(__name__)

MAX_LOSSES = 3
"""An episode whose actor was lost so often is reported as failed: it is likely what kills them."""
BUILT_IN = ("CPU", "GPU", "memory")
"""Resources that Ray has arguments of their own for."""


@dataclass(frozen=True)
class News:
    """What happened in an evaluation: episodes that are over, or the error that ends it."""

    evaluation: str
    results: tuple[EpisodeResult, ...] = ()
    error: BaseException | None = None


@dataclass(frozen=True)
class _Waiting:
    portion: Portion
    losses: int = 0


@dataclass(eq=False)
class _Seat:
    """An actor and what it is at."""

    actor: Any
    work: _Waiting | None = None
    call: Any = None


class RolloutPool:
    """Up to `num_actors` actors with `resources` each. Close it, or use it as a context manager."""

    def __init__(self, *, num_actors: int, resources: Mapping[str, float], gives_way: bool = False) -> None:
        """`gives_way`: where CPUs are few, other processes go first (`RolloutActor`)."""
        self._num_actors, self._resources, self._gives_way = num_actors, dict(resources), gives_way
        self._waiting: deque[_Waiting] = deque()
        self._seats: list[_Seat] = []
        self._inbox: Any = None
        self._over: dict[tuple[str, str], set[int]] = {}
        """(evaluation, task) -> episodes that are known to be over."""

    @property
    def unfinished(self) -> int:
        """Portions that wait or are being played."""
        return len(self._waiting) + sum(seat.work is not None for seat in self._seats)

    def submit(self, portion: Portion) -> None:
        self._waiting.append(_Waiting(portion))

    def poll(self, timeout_s: float = 0.0) -> list[News]:
        """What is new since the last call; gives idle actors work. Waits at most `timeout_s` for a portion to end."""
        import ray

        self._hand_out()
        busy = {seat.call: seat for seat in self._seats if seat.work is not None}
        ready: list[Any] = []
        if busy:
            wanted = 1 if timeout_s else len(busy)
            ready, _ = ray.wait(list(busy), num_returns=wanted, timeout=timeout_s)
        news = self._posted()
        for call in ready:
            news += self._collect(busy[call])
        self._hand_out()
        if not self.unfinished:
            self.release()
        return [entry for entry in news if entry.results or entry.error]

    def drop(self, evaluation: str) -> None:
        """Play no more of an evaluation. What is being played is played to its end, and is no news."""
        self._waiting = deque(entry for entry in self._waiting if entry.portion.evaluation != evaluation)

    def release(self) -> None:
        """Let all actors go; they are started again when needed."""
        for seat in self._seats:
            _kill(seat.actor)
        self._seats = []

    def close(self) -> None:
        self._waiting.clear()
        self.release()
        if self._inbox is not None:
            _kill(self._inbox)

    def __enter__(self) -> RolloutPool:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _hand_out(self) -> None:
        for seat in self._seats:
            if seat.work is None and self._waiting:
                self._give(seat)
        while self._waiting and len(self._seats) < self._num_actors:
            seat = _Seat(self._start_actor())
            self._seats.append(seat)
            self._give(seat)

    def _give(self, seat: _Seat) -> None:
        seat.work = self._waiting.popleft()
        seat.call = seat.actor.play.remote(seat.work.portion)

    def _start_actor(self) -> Any:
        import ray

        from lerobot_ray.on_ray.board import start_board  # not above: ray is imported when it is known how to start it

        self._inbox = self._inbox or start_board()
        resources = self._resources
        options: dict[str, Any] = {
            "num_cpus": resources.get("CPU", 0),
            "num_gpus": resources.get("GPU", 0),
            "resources": {name: amount for name, amount in resources.items() if name not in BUILT_IN},
        }
        if "memory" in resources:
            options["memory"] = resources["memory"]
        device = "cuda" if resources.get("GPU", 0) > 0 else "cpu"
        actor = ray.remote(RolloutActor).options(**options, max_restarts=0)
        return actor.remote(device, self._inbox, gives_way=self._gives_way)

    def _posted(self) -> list[News]:
        """Episodes that actors have announced."""
        import ray

        if self._inbox is None:
            return []
        try:
            posts = ray.get(self._inbox.take.remote(), timeout=10)
        except ray.exceptions.RayError:  # episodes are also in what `play` returns
            return []
        return [self._news(evaluation, [result]) for evaluation, result in posts]

    def _news(self, evaluation: str, results: Sequence[EpisodeResult]) -> News:
        """Results that are not known yet."""
        fresh = []
        for result in results:
            over = self._over.setdefault((evaluation, result.task), set())
            if result.episode not in over:
                over.add(result.episode)
                fresh.append(result)
        return News(evaluation, tuple(fresh))

    def _collect(self, seat: _Seat) -> list[News]:
        import ray

        assert seat.work is not None
        portion = seat.work.portion
        try:
            results = ray.get(seat.call)
        except ray.exceptions.RayTaskError as error:  # the code raised: it would in another actor, too
            seat.work = None
            self.drop(portion.evaluation)
            return [News(portion.evaluation, error=error.cause if isinstance(error.cause, Exception) else error)]
        except ray.exceptions.RayError as error:  # the actor or its node is gone
            self._seats.remove(seat)
            _kill(seat.actor)  # one that is only out of reach would keep its CPUs
            return self._lost(seat.work, f"the actor that played it was lost ({type(error).__name__})")
        seat.work = None
        return [self._news(portion.evaluation, results)]

    def _lost(self, work: _Waiting, why: str) -> list[News]:
        """Put back what is not over yet. After a second loss episode by episode, to find the one that is to blame."""
        portion, losses = work.portion, work.losses + 1
        over = self._over.get((portion.evaluation, _task(portion)), set())
        episodes = tuple(episode for episode in portion.episodes if episode not in over)
        if losses < MAX_LOSSES:
            logger.warning("%s: %s; %d episodes are played again", portion.evaluation, why, len(episodes))
            groups = [episodes] if losses == 1 else [(episode,) for episode in episodes]
            parts = [dataclasses.replace(portion, episodes=group) for group in groups if group]
            self._waiting.extendleft(_Waiting(part, losses) for part in reversed(parts))
            return []
        failed = [
            EpisodeResult(
                episode=episode,
                seed=portion.seed + episode,
                task=_task(portion),
                success=None,
                sum_reward=0.0,
                max_reward=0.0,
                length=0,
                error=f"{why}, {losses} times",
            )
            for episode in episodes
        ]
        return [self._news(portion.evaluation, failed)]


def _task(portion: Portion) -> str:
    return portion.env.task or portion.env.type


def _kill(actor: Any) -> None:
    import ray

    try:
        ray.kill(actor)
    except Exception as error:  # gone already, or Ray is
        logger.debug("rollout actor: %s", error)
