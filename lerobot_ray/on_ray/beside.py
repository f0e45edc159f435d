"""What happens beside the steps on one rank: numbers to trackers and driver, the audit, held-out loss, checkpoints."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
import torch

from lerobot_ray.data.audit import AuditWriter
from lerobot_ray.data.order import Order
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.loop import Hooks
from lerobot_ray.engine.state import TrainState
from lerobot_ray.on_ray.batches import TrainingBatches
from lerobot_ray.on_ray.held_out import HeldOut
from lerobot_ray.on_ray.over_ranks import combined, gathered
from lerobot_ray.on_ray.pulse import EVALUATING, PUSHING, SAVING, TRAINING, Pulse
from lerobot_ray.on_ray.run_setup import Batching, RunSetup
from lerobot_ray.on_ray.saving import Saver
from lerobot_ray.on_ray.second_places import second_places
from lerobot_ray.tracking.build import start_trackers
from lerobot_ray.tracking.facts import selection_facts
from lerobot_ray.tracking.guarded import GuardedTrackers
from lerobot_ray.tracking.protocol import Outcome

logger = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.5


class Beside:
    """Hooks of the loop. A context manager: on the way out it waits for the last checkpoint and ends the trackers."""

    def __init__(
        self,
        *,
        setup: RunSetup,
        learner: Learner,
        order: Callable[[], Order],
        pulse: Pulse,
        batches: TrainingBatches,
        batching: Batching,
        state: TrainState,
        rank: int,
        world_size: int,
        device: torch.device,
        board: Any,
        audit: AuditWriter | None,
        held_out: HeldOut | None,
        mark: str = "parts",
    ) -> None:
        """Collective: every rank calls this. `mark` is this start's, the same on all ranks."""
        self._setup, self._learner, self._batching = setup, learner, batching
        self._batches = batches
        self._pulse = pulse
        self._rank, self._world_size, self._device = rank, world_size, device
        self._board, self._audit, self._held_out = board, audit, held_out
        self._trackers = self._start_trackers(state) if rank == 0 else None
        self._places = second_places(setup, first_step=state.step) if rank == 0 else []
        self._saver = Saver(
            setup,
            learner,
            order,
            rank=rank,
            world_size=world_size,
            after_commit=self._checkpoint_complete,
            may_remove=lambda path: all(place.may_remove(path) for place in self._places),
            mark=mark,
        )
        self._outcome: Outcome | None = None
        self._window = _Window(state.step)
        self._posted_at = 0.0
        self._asked_for_results: Any = None

    def hooks(self) -> Hooks:
        config = self._setup.config
        return Hooks(
            save=self.save if config.save_checkpoint or self._setup.publishes else None,
            evaluate=self.evaluate if self._held_out is not None else None,
            log=self.log,
            trained=self.trained,
        )

    def trained(self, state: TrainState, _: list[torch.Tensor]) -> None:
        """After every step: the rows of the audit, and now and then where the run stands."""
        for samples in self._batches.trained(self._batching.accumulation_steps):
            if self._audit is not None:
                self._audit.add(
                    step=state.step - 1,
                    stream_index=samples.stream_index,
                    episode=samples.episode,
                    frame=samples.frame,
                )
        self._pulse.at(TRAINING, step=state.step)
        now = time.monotonic()
        if self._rank == 0 and now - self._posted_at > PROGRESS_EVERY_S:
            self._posted_at = now
            self._board.post.remote("step", state.step)
            self._take_results()

    def log(self, state: TrainState, values: Mapping[str, float]) -> None:
        """Collective: every rank calls this. One window's numbers, of all ranks together."""
        if all("/" in name for name in values):  # the held-out loss: all ranks have the same
            numbers = dict(values)
        else:
            numbers = self._train_numbers(state, values)
        if self._trackers is not None:
            self._trackers.log(numbers, step=state.step)
            # not to `ray.train.report`, which lets all ranks wait for the controller to look, every two seconds
            self._board.post.remote("numbers", (state.step, numbers))

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Collective: every rank calls this. The held-out loss, of the trained weights."""
        assert self._held_out is not None
        self._pulse.at(EVALUATING)
        with self._learner.autocast(self._device):
            values = {"eval/loss": self._held_out.loss(self._learner.policy)}
        self._saver.note(state.step, values)
        return values

    def save(self, state: TrainState) -> None:
        """Collective: every rank calls this."""
        started = time.perf_counter()
        self._pulse.at(SAVING)
        if self._audit is not None:
            self._audit.flush()
        self._saver.save(state)
        self._window.checkpoint_s += time.perf_counter() - started
        self._pulse.at(TRAINING)

    def settle(self) -> None:
        """Collective: every rank calls this. Until the checkpoint being written is complete."""
        self._pulse.at(SAVING)
        self._saver.settle()

    def finish(self, *, stopped: str) -> None:
        """The loop has ended: by itself, or because somebody asked (`stopped` says why)."""
        if stopped:
            self._outcome = Outcome("stopped", stopped)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        if self._outcome is None and error is not None:
            self._outcome = Outcome("failed", f"{type(error).__name__}: {error}")
        with contextlib.ExitStack() as ending:
            for place in self._places:
                ending.callback(place.abandon)  # after `finish` there is nothing left to abandon
            try:
                if self._audit is not None:
                    self._audit.close()
                if error is None:
                    self._saver.close()
                else:  # the error that ended the run is the one to hear of
                    with contextlib.suppress(Exception):
                        self._saver.close()
            finally:
                if self._trackers is not None:
                    self._trackers.close(self._outcome or Outcome())
            if error is None and self._places:
                self._pulse.at(PUSHING)
                for place in self._places:  # with the last lines of the logs
                    place.finish(is_done=self._outcome is None)
                self._saver.remove_old()  # what was kept for the upload

    def _train_numbers(self, state: TrainState, values: Mapping[str, float]) -> dict[str, float]:
        mine = dict(values)
        mine.update(self._window.close(state.step, self._batches.preprocessing_s))
        fetching_s = mine.get("dataloading_s", 0.0)
        mine["update_s"] = max(0.0, mine.get("step_s", 0.0) - fetching_s)
        mine["dataloading_s"] = max(0.0, fetching_s - mine["preprocessing_s"])
        mine["mem_gb"] = psutil.Process().memory_info().rss / 1e9
        if self._device.type == "cuda":
            mine["gpu_mem_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
        if self._learner.ema is not None:
            mine["ema_updates"] = float(self._learner.ema.num_updates)
        whole = combined(gathered(mine, self._world_size))
        whole["samples_per_s"] = self._batching.global_batch / max(whole.pop("wall_s"), 1e-9)
        whole["samples"] = float(state.samples_seen)
        whole["epochs"] = state.samples_seen / self._setup.num_samples
        return {name if "/" in name else f"train/{name}": float(value) for name, value in whole.items()}

    def _take_results(self) -> None:
        """Evaluations that the driver had done meanwhile; asks for the next ones, without waiting for an answer."""
        if self._trackers is None:
            return
        if self._asked_for_results is not None:
            ready, _ = ray.wait([self._asked_for_results], timeout=0)
            if not ready:
                return
            with contextlib.suppress(ray.exceptions.RayError):
                for result in ray.get(ready[0]):
                    self._trackers.log(result.numbers, step=result.step)
                    for video in result.videos:
                        self._trackers.log_file(video, folder=f"eval/step_{result.step}")
        self._asked_for_results = self._board.delivered.remote()

    def _checkpoint_complete(self, checkpoint: Path) -> None:
        self._board.post.remote("checkpoint", checkpoint)
        if self._trackers is not None:
            self._trackers.log_checkpoint(checkpoint, step=int(checkpoint.name))
        for place in self._places:
            place.submit(checkpoint)

    def _start_trackers(self, state: TrainState) -> GuardedTrackers:
        parameters = list(self._learner.policy.parameters())
        sizes = {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        }
        self._board.post.remote("parameters", (sizes["trainable_parameters"], sizes["parameters"]))
        return start_trackers(
            self._setup.tracking,
            first_step=state.step,
            samples_seen=state.samples_seen,
            world_size=self._world_size,
            global_batch=self._batching.global_batch,
            facts={**selection_facts(self._setup.spec.selection), **sizes},
        )


class _Window:
    """Times between two log lines, per step."""

    def __init__(self, step: int) -> None:
        self.checkpoint_s = 0.0
        self._step, self._began = step, time.perf_counter()
        self._preprocessing_s = 0.0

    def close(self, step: int, preprocessing_s: float) -> dict[str, float]:
        """What one step of the window took on average; begins the next window."""
        steps, now = max(1, step - self._step), time.perf_counter()
        means = {
            "wall_s": (now - self._began) / steps,
            "preprocessing_s": (preprocessing_s - self._preprocessing_s) / steps,
            "checkpoint_s": self.checkpoint_s / steps,
        }
        self._step, self._began, self._preprocessing_s, self.checkpoint_s = step, now, preprocessing_s, 0.0
        return means
