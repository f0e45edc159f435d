"""Who holds an environment: this process, or (in `process`) one of its own that may crash or hang alone.

A host is asked for something and answers later, so that environments step at the same time. One question at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.envs.stage import EnvSpec, Stage

BUILD_TIMEOUT_S = 300.0
"""How long an environment may take to be built: simulators compile and load."""


class EnvFailed(LerobotRayError):
    """An environment did not answer: it raised, its process ended, or it took too long. Its episode is over."""


class EnvHost(Protocol):
    """Holds one environment. After `EnvFailed` the next question finds a fresh environment."""

    deadline: float
    """By `time.monotonic()`: when to call `give_up` on the question that was asked."""
    connection: Connection | None
    """What becomes readable when the answer is there; None: it is there as soon as the question was asked."""

    def ask_spec(self) -> None:
        """The answer is an `EnvSpec`."""

    def ask_reset(self, seed: int, *, with_picture: bool) -> None:
        """The answer is a `Moment`."""

    def ask_step(self, action: np.ndarray, *, with_picture: bool) -> None:
        """The answer is a `Moment`."""

    def answer(self) -> Any:
        """The answer, waited for. Raises EnvFailed."""

    def give_up(self) -> None:
        """Stops waiting: the next `answer` is EnvFailed at once."""

    def close(self) -> None:
        """Lets the environment go, whatever it is doing."""


class LocalHost:
    """The environment in this process. Cheap; what it raises ends its episode, but where it hangs, everything does."""

    def __init__(self, config: EnvConfig, *, timeout_s: float) -> None:
        self.deadline = float("inf")
        self.connection: Connection | None = None
        self._config, self._timeout_s = config, timeout_s
        self._stage: Stage | None = None
        self._answer: Any = None

    def ask_spec(self) -> None:
        self._ask("spec")

    def ask_reset(self, seed: int, *, with_picture: bool) -> None:
        self._ask("reset", seed, with_picture)

    def ask_step(self, action: np.ndarray, *, with_picture: bool) -> None:
        self._ask("step", action, with_picture)

    def _ask(self, method: str, *arguments: Any) -> None:
        try:
            self._stage = self._stage or Stage(self._config)
            start = time.monotonic()
            self._answer = getattr(self._stage, method)(*arguments)
            if (took_s := time.monotonic() - start) > self._timeout_s:
                self._answer = EnvFailed(f"{method} took {took_s:.0f} s, the limit is {self._timeout_s:g} s")
        except Exception as error:  # an environment is a stranger's code
            self._answer = EnvFailed(in_words(error))

    def answer(self) -> Any:
        if isinstance(self._answer, EnvFailed):
            self.close()
            raise self._answer
        return self._answer

    def give_up(self) -> None:
        raise AssertionError("a local environment answers before anyone could give up")

    def close(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            close_quietly(stage)


def open_hosts(config: EnvConfig, count: int, *, is_async: bool, timeout_s: float) -> list[EnvHost]:
    """So many environments, each in a process of its own with `is_async`. The caller closes them."""
    if not is_async:
        return [LocalHost(config, timeout_s=timeout_s) for _ in range(count)]
    from lerobot_ray.envs.process import ProcessHost

    return [ProcessHost(config, timeout_s=timeout_s) for _ in range(count)]


def those_ready(hosts: Sequence[EnvHost]) -> list[EnvHost]:
    """The hosts with an answer, waiting until there is one. Those past their deadline are given up on, and ready."""
    local = [host for host in hosts if host.connection is None]
    if local:
        return local
    by_connection = {host.connection: host for host in hosts}
    timeout_s = 0.0  # first of all those that answered while nobody listened: a policy may take its time
    while True:
        ready = [by_connection[connection] for connection in wait(list(by_connection), timeout_s)]  # type: ignore
        now = time.monotonic()
        late = [host for host in hosts if host.deadline <= now and host not in ready]
        for host in late:
            host.give_up()
        if ready or late:
            return [*late, *ready]
        timeout_s = max(0.0, min(host.deadline for host in hosts) - now)


def spec_of(config: EnvConfig) -> EnvSpec:
    """What an environment gives and takes. Builds it in this process and lets it go."""
    stage = Stage(config)
    try:
        return stage.spec()
    finally:
        close_quietly(stage)


def close_quietly(stage: Stage) -> None:
    """Closes an environment that is not needed any more, or that failed: what it says about it does not matter."""
    try:
        stage.close()
    except Exception:  # a stranger's code again, and it may be what has just failed
        return


def in_words(error: BaseException) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, LerobotRayError) else f"{type(error).__name__}: {error}".rstrip(": ")
