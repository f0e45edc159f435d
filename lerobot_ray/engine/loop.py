"""The training loop. It knows no policy, no tracker and no cluster by name; those were settled before it began."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from lerobot_ray.core.types import Batch
from lerobot_ray.engine.finite import FiniteWatch
from lerobot_ray.engine.host import Host
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.meters import Meters
from lerobot_ray.engine.randomness import seed_step, undisturbed
from lerobot_ray.engine.state import TrainState
from lerobot_ray.engine.step import StepResult, backward, move

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The numbers the loop goes by. Intervals of 0 mean never; the last step is always saved if any is."""

    steps: int
    global_batch: int
    accumulation_steps: int = 1
    seed: int = 0
    log_freq: int = 0
    save_freq: int = 0
    also_save_freq: int = 0
    """Steps that are saved for another reason: somebody looks at them."""
    eval_freq: int = 0
    saves_last: bool = True
    skips_nonfinite: bool = False


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What happens beside the steps. Each is called on every rank, at the same steps."""

    save: Callable[[TrainState], None] | None = None
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None
    """Held-out loss and the like; draws inside it disturb no training draw."""
    log: Callable[[TrainState, Mapping[str, float]], None] | None = None
    trained: Callable[[TrainState, list[torch.Tensor]], None] | None = None
    """After every step: the state it led to and the stream indices of its micro-batches on this rank."""


def train(
    learner: Learner,
    batches: Iterable[Batch],
    state: TrainState,
    settings: LoopSettings,
    host: Host,
    hooks: Hooks | None = None,
) -> TrainState:
    """Train from `state` to `settings.steps`, or until the host asks to stop; the state reached.

    `batches` begins at `state.samples_seen` and yields this rank's micro-batches in order, on the host's device.
    """
    hooks = hooks or Hooks()
    stream, meters, watch = iter(batches), Meters(), FiniteWatch(learner.policy)
    stop = False
    learner.policy.train()
    while state.step < settings.steps and not stop:
        seed_step(settings.seed, state.step, host.rank)
        with meters.timed("step_s"):
            result, took = _one_step(learner, stream, settings, host.device, meters)
        if settings.skips_nonfinite:
            meters.add({"skipped_steps": float(not took)})
        elif result.is_finite is not None:
            watch.submit(state.step, result.is_finite, result.stream_indices)
        state = state.after_step(settings.global_batch)
        if took:
            meters.add({"loss": result.loss, "grad_norm": result.grad_norm, **result.logged})
        if hooks.trained:
            hooks.trained(state, result.stream_indices)
        stop = host.should_stop()
        is_last = state.step == settings.steps

        if hooks.log and (every(settings.log_freq, state.step) or is_last):
            hooks.log(state, {**meters.window(), **_learning_rates(learner)})
        if hooks.evaluate and (every(settings.eval_freq, state.step) or (is_last and settings.eval_freq)):
            with evaluating(learner.policy):
                values = hooks.evaluate(state)
            if hooks.log:
                hooks.log(state, values)
        is_named = every(settings.save_freq, state.step) or every(settings.also_save_freq, state.step)
        if hooks.save and (is_named or stop or (is_last and settings.saves_last)):
            watch.settle()
            hooks.save(state)
    watch.settle()
    return state


def every(interval: int, step: int) -> bool:
    """Whether `step` is one of those an interval names; 0 names none."""
    return interval > 0 and step % interval == 0


@contextmanager
def evaluating(policy: torch.nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, and generators as before afterwards."""
    was_training = policy.training
    policy.eval()
    try:
        with undisturbed(), torch.no_grad():
            yield
    finally:
        policy.train(was_training)


def _one_step(
    learner: Learner, stream: Iterator[Batch], settings: LoopSettings, device: torch.device, meters: Meters
) -> tuple[StepResult, bool]:
    waited = _Waited(stream, meters)
    count = settings.accumulation_steps
    result = backward(learner, islice(waited, count), count=count, device=device)
    took = move(learner, result, wait_and_skip=settings.skips_nonfinite)
    meters.add({"dataloading_s": waited.seconds})
    return result, took


class _Waited:
    """An iterator that knows how long it kept its reader waiting."""

    def __init__(self, stream: Iterator[Batch], meters: Meters) -> None:
        self._stream, self.seconds = stream, 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        started = time.perf_counter()
        batch = next(self._stream)
        self.seconds += time.perf_counter() - started
        return batch


def _learning_rates(learner: Learner) -> dict[str, float]:
    rates = {}
    for name, optimizer in learner.optimizers.items():
        key = "lr" if len(learner.optimizers) == 1 else f"lr_{name}"
        rates[key] = float(optimizer.param_groups[0]["lr"])
    return rates
