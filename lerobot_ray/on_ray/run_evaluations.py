"""The evaluations of a training run, on its driver: rollout actors get due checkpoints while training goes on.

Nothing here is waited for by training. What is owed follows from the run's folder, so a run that was stopped, or whose
driver died, goes on evaluating where it was.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.retention import note_score, nothing_held
from lerobot_ray.checkpoint.state import load_record
from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import CHECKPOINTS_DIR
from lerobot_ray.envs.eval_info import load_info, metrics_of, save_info, sentence_of
from lerobot_ray.on_ray.evaluated import (
    evaluated_folder,
    evaluates,
    failed_path,
    info_path,
    is_due,
    is_evaluated,
    is_settled,
    mark_of,
    recording_dir,
    video_dir,
)
from lerobot_ray.on_ray.evaluation import Evaluation, EvaluationPlan, portions, resources_of
from lerobot_ray.on_ray.recordings import keep_recordings
from lerobot_ray.on_ray.rollout_actor import PolicySource
from lerobot_ray.on_ray.rollout_pool import RolloutPool
from lerobot_ray.on_ray.run_folder import marks_of_checkpoints
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.saving import retention_of
from lerobot_ray.tracking.afterwards import LateNumbers, log_afterwards
from lerobot_ray.tracking.metric_log import load_metrics

POLL_S = 0.3


@dataclass(frozen=True)
class StepResult:
    """What the evaluation of one step brought."""

    step: int
    numbers: dict[str, float]
    sentence: str
    videos: tuple[Path, ...] = ()


class RunEvaluations:
    """Poll it. `deliver` gets each result, `say` a line of text for the person who watches."""

    def __init__(
        self,
        setup: RunSetup,
        *,
        deliver: Callable[[StepResult], None],
        say: Callable[[str], None],
    ) -> None:
        self._setup, self._config = setup, setup.config
        self._deliver, self._say = deliver, say
        evaluation = self._config.eval
        self._pool = RolloutPool(num_actors=evaluation.num_actors, resources=resources_of(evaluation), gives_way=True)
        self._running: dict[str, tuple[Path, Evaluation]] = {}
        self._waiting: deque[Path] = deque()
        self._results: dict[int, StepResult] = {}
        """Of this run, whichever start brought them."""
        step = load_record(setup.resume_from, num_samples=setup.num_samples).step if setup.resume_from else 0
        self._foreign = {entry for entry in setup.not_ours if int(entry[0]) > step}
        """Checkpoints of a run that this one does not continue."""
        if evaluates(self._config):
            self._resume()

    @property
    def results(self) -> list[StepResult]:
        """All there are of this run, by step."""
        return [result for _, result in sorted(self._results.items())]

    @property
    def num_open(self) -> int:
        """Evaluations that wait or run."""
        return len(self._waiting) + len(self._running)

    @property
    def state(self) -> str:
        """Where it stands, for a line of progress."""
        parts = [f"{name}: {run.num_done}/{run.num_episodes} episodes" for name, (_, run) in self._running.items()]
        waiting = f"{len(self._waiting)} waiting" if self._waiting else ""
        return ", ".join([*parts, waiting] if waiting else parts)

    def add(self, checkpoint: Path) -> None:
        """A checkpoint is complete."""
        known = {*self._waiting, *(path for path, _ in self._running.values())}
        if checkpoint not in known and is_due(self._config, int(checkpoint.name)):
            self._waiting.append(checkpoint)

    def _resume(self) -> None:
        """What earlier starts of the run have brought, and what they owe."""
        for checkpoint in self._due():
            if is_evaluated(checkpoint):
                self._results[int(checkpoint.name)] = step_result(load_info(info_path(checkpoint)))
            else:
                failed_path(checkpoint).unlink(missing_ok=True)
                self.add(checkpoint)

    def catch_up(self) -> None:
        """Add what is owed by the run's folder, in case a notice of it was lost."""
        for checkpoint in self._due():
            if not is_settled(checkpoint):
                self.add(checkpoint)

    def _due(self) -> list[Path]:
        """The run's complete checkpoints that are to be evaluated, or have been."""
        run_dir = self._setup.output_dir
        own = [entry for entry in marks_of_checkpoints(run_dir) if entry not in self._foreign]
        return [run_dir / CHECKPOINTS_DIR / name for name, _ in own if is_due(self._config, int(name))]

    def poll(self, timeout_s: float = 0.0) -> None:
        """Start what may start, take in what is done."""
        while self._waiting and len(self._running) < self._config.eval.max_in_flight:
            self._begin(self._waiting.popleft())
        if not self._running:
            return
        for news in self._pool.poll(timeout_s):
            if news.evaluation in self._running:
                self._running[news.evaluation][1].add(news)
        for name, (checkpoint, evaluation) in list(self._running.items()):
            if evaluation.is_over:
                del self._running[name]
                self._conclude(checkpoint, evaluation)

    def finish(self, *, waits_for: Callable[[str], None], should_stop: Callable[[], bool]) -> None:
        """Training is over: wait for what is open, then bring trackers and checkpoints up to date."""
        self.catch_up()
        while self.num_open and not should_stop():
            waits_for(f"training is over, evaluations go on: {self.state}")
            self.poll(POLL_S)
        if self.num_open:
            self._say(f"{self.num_open} evaluations are left; --resume=auto does them")
        self.settle()

    def settle(self) -> None:
        """The workers are gone: bring trackers and checkpoints up to date with the results there are."""
        if evaluates(self._config):
            self._log_what_trackers_missed()
            retention_of(self._config).apply(self._setup.output_dir)

    def let_go(self) -> None:
        """What is still owed will not be done: its checkpoints stay no longer for that."""
        self._pool.close()
        self._waiting.clear()
        self._running.clear()
        if evaluates(self._config):
            self._log_what_trackers_missed()
            dataclasses.replace(retention_of(self._config), held_back=nothing_held).apply(self._setup.output_dir)

    def _log_what_trackers_missed(self) -> None:
        """Rank 0 is gone: what it did not log of the results is logged here."""
        try:
            logged = set(load_metrics(self._setup.output_dir).series["eval/eval_s"].step.tolist())
        except (DatasetError, KeyError):
            logged = set()
        missed = [result for result in self.results if result.step not in logged]
        late = [LateNumbers(result.step, result.numbers, result.videos) for result in missed]
        if late:
            log_afterwards(self._setup.tracking, late)

    def close(self) -> None:
        self._pool.close()

    def _begin(self, checkpoint: Path) -> None:
        config = self._config
        assert config.env is not None
        shutil.rmtree(video_dir(checkpoint), ignore_errors=True)
        folder = evaluated_folder(checkpoint, config)
        plan = EvaluationPlan(
            name=f"step {int(checkpoint.name)}",
            policy=PolicySource(folder=folder),
            env=config.env,
            eval=config.eval,
            seed=self._setup.seed,
            num_actors=config.eval.num_actors,
            video_dir=video_dir(checkpoint),
            recording_dir=recording_dir(checkpoint) if config.eval.recording else None,
            about={
                "step": int(checkpoint.name),
                "checkpoint": mark_of(checkpoint),
                "policy": str(checkpoint),
                "folder": str(folder),
            },
        )
        self._running[plan.name] = (checkpoint, Evaluation(plan))
        for portion in portions(plan):
            self._pool.submit(portion)

    def _conclude(self, checkpoint: Path, evaluation: Evaluation) -> None:
        step = int(checkpoint.name)
        if evaluation.error is not None:
            self._say(f"step {step} could not be evaluated: {evaluation.error}")
            about = {**evaluation.plan.about, "error": str(evaluation.error)}
            save_info({"evaluation": about}, failed_path(checkpoint))
            return
        info = evaluation.info()
        result = self._results[step] = step_result(info)
        if self._config.best_metric in result.numbers:
            note_score(self._setup.output_dir, step, result.numbers[self._config.best_metric])
        save_info(info, info_path(checkpoint))  # last: from now on the checkpoint may be removed
        self._say(f"step {step} evaluated: {result.sentence}")
        if self._config.eval.recording:
            keep_recordings(evaluation.plan, say=self._say)
        self._deliver(result)


def step_result(info: dict[str, Any]) -> StepResult:
    videos = tuple(Path(path) for path in info["overall"]["video_paths"])
    return StepResult(int(info["evaluation"]["step"]), metrics_of(info), sentence_of(info), videos)
