"""The rollouts of one trial: its due checkpoints are played while it trains on, and its slot waits for the last ones.

Trackers in the training processes get results as in any run. The driver gets them here, to judge the trial by.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lerobot_ray.on_ray.run_evaluations import RunEvaluations, StepResult
from lerobot_ray.on_ray.run_setup import RunSetup


class TrialRollouts:
    """From the trial's start until its slot is free again. A trial without an environment has none, and never waits."""

    def __init__(
        self,
        setup: RunSetup,
        *,
        deliver: Callable[[StepResult], None],
        report: Callable[[StepResult], None],
        say: Callable[[str], None],
    ) -> None:
        self._deliver, self._report = deliver, report
        self.left: tuple[int | None, str] | None = None
        """The step the trial has reached and what it failed of, once its training is over."""
        self._evaluations = RunEvaluations(setup, deliver=self._brought, say=say)

    def report_known(self) -> None:
        """Results of earlier starts, which whoever died may not have heard of."""
        for result in self._evaluations.results:
            self._report(result)

    def add(self, checkpoint: Path) -> None:
        """A checkpoint is complete."""
        self._evaluations.add(checkpoint)

    def trained(self, step: int | None, failure: str) -> None:
        """The trial has left its processes."""
        self.left = (step, failure)
        self._evaluations.catch_up()

    def poll(self) -> None:
        self._evaluations.poll()

    @property
    def is_open(self) -> bool:
        """Whether a checkpoint waits to be played, or is."""
        return self._evaluations.num_open > 0

    @property
    def state(self) -> str:
        return self._evaluations.state

    def settle(self) -> None:
        """Trackers and checkpoints, after training."""
        self._evaluations.settle()

    def let_go(self) -> None:
        """The trial was stopped for good: what it owes is not done."""
        self._evaluations.let_go()

    def close(self) -> None:
        self._evaluations.close()

    def _brought(self, result: StepResult) -> None:
        if self.left is None:
            self._deliver(result)
        self._report(result)
