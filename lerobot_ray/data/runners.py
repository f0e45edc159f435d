"""Ways to run the same function over many tasks on one machine: here, or in processes of its own.

Statistics and validation cut their work into tasks that know nothing of each other and take a `Runner`. A Ray cluster
is another Runner, in `on_ray.stats`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from lerobot_ray.core.errors import LerobotRayError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Runner(Protocol):
    """Applies a module-level function to every task and yields the results in the order of the tasks."""

    def __call__(self, function: Callable[[Task], Result], tasks: Sequence[Task], /) -> Iterator[Result]: ...


def run_here(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """The plainest Runner: one task after another in this process."""
    return map(function, tasks)


class Processes:
    """A Runner over fresh processes. Use as a context manager; idle until the first call.

    A task whose process dies (a decoder that crashes on a damaged file, a system short of memory) is tried once more,
    alone; if that dies too, `on_crash(task)` is its result, or an error naming the task if there is no `on_crash`.
    """

    def __init__(self, workers: int | None = None, *, on_crash: Callable[[Any], Any] | None = None) -> None:
        self.workers = workers or available_cpus()
        self._on_crash = on_crash
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        waiting: deque[tuple[Task, Future[Result]]] = deque()
        left = iter(tasks)
        while True:
            # A bounded queue: results wait for their turn, and a small result may wait for a slow task before it.
            for task in left:
                waiting.append((task, self._submit(function, task)))
                if len(waiting) >= 4 * self.workers:
                    break
            if not waiting:
                return
            task, future = waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                self.close()
                result = self._alone(function, task)
                waiting = deque((other, self._submit(function, other)) for other, _ in waiting)
            yield result

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        if self._pool is None:
            self._pool = _pool(self.workers)
        try:
            return self._pool.submit(function, task)
        except BrokenProcessPool:  # noticed at once for the tasks that follow; each is then tried alone
            failed: Future[Result] = Future()
            failed.set_exception(BrokenProcessPool())
            return failed

    def _alone(self, function: Callable[[Task], Result], task: Task) -> Result:
        with _pool(1) as pool:
            try:
                return pool.submit(function, task).result()
            except BrokenProcessPool as error:
                if self._on_crash is None:
                    raise LerobotRayError(
                        f"the process working on {task} died twice. A file may be damaged or memory short; "
                        "`python -m lerobot_ray.dataset validate` names damaged files."
                    ) from error
                return self._on_crash(task)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_progress(run: Runner, *, label: str, unit: str = "file", enabled: bool | None = None) -> Runner:
    """The same Runner with a bar on stderr; by default only in a terminal."""

    def run_and_show(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        disable = None if enabled is None else not enabled
        yield from tqdm(run(function, tasks), total=len(tasks), desc=label, unit=unit, disable=disable, leave=False)

    return run_and_show


def available_cpus() -> int:
    """CPUs this process may use, which in a container or under taskset is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not fork: the parent may hold decoder threads and locks, of which a forked child gets half.
    return ProcessPoolExecutor(max_workers=workers, mp_context=multiprocessing.get_context("spawn"))
