"""Which trial begins next: interrupted ones first, then what the searcher gives, or the next leg of a population."""

from __future__ import annotations

import logging
import math
from typing import Any

from lerobot_ray.sweeps.journal import Event, Journal
from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.population import Exploit, exploits, generations, interval_of
from lerobot_ray.sweeps.searchers import build_searcher
from lerobot_ray.sweeps.stoppers import build_stoppers
from lerobot_ray.sweeps.trial import SweepState, Trial, set_score

logger = logging.getLogger(__name__)


class TrialQueue:
    """The state, and whoever learns from it: the searcher, the stoppers, the population. Journals before it acts."""

    def __init__(self, plan: SweepPlan, earlier: list[Event]) -> None:
        self.plan, self.state = plan, SweepState(plan.sweep)
        self.is_population = plan.sweep.scheduler.type == "pbt"
        self._searcher = build_searcher(plan.sweep)
        self._stoppers = build_stoppers(plan.sweep, steps=plan.steps)
        self._journal: Journal | None = None
        self._has_warned = False
        self._settled: set[int] = set()
        self.size = self._size()
        for event in earlier:
            self._learn(event)

    def record(self, event: str, **values: Any) -> str:
        """Write down what happened and take it in; why the trial it concerns should stop, if it should."""
        if self._journal is None:
            self._journal = Journal(self.plan.folder)
        return self._learn(self._journal.add(event, **values))

    def next_trial(self) -> Trial | None:
        """A trial that can begin now; None while there is none."""
        for status in ("interrupted", "waiting"):
            for trial in self.state.trials.values():
                if trial.status == status and self._may_begin(trial):
                    return trial
        return self._new_trial()

    @property
    def has_more(self) -> bool:
        """Whether a trial has not ended, or not begun."""
        is_open = any(not trial.has_ended for trial in self.state.trials.values())
        return is_open or self.size is None or self.sets_begun < self.size

    @property
    def sets_begun(self) -> int:
        return len({trial.set_number for trial in self.state.trials.values()})

    def leg_end(self, trial: Trial) -> int:
        """The step a trial trains to before it is looked at again."""
        if not self.is_population:
            return self.plan.steps
        steps = generations(self.plan.steps, interval_of(self.plan.sweep, steps=self.plan.steps))
        return steps[min(trial.generation, len(steps) - 1)]

    def generation_due(self) -> int | None:
        """The generation all trials of the population have come to the end of, and nobody has looked at."""
        alive = [trial for trial in self.state.trials.values() if not trial.has_ended]
        if not self.is_population or not alive or self.sets_begun < (self.size or 0):
            return None
        generation = alive[0].generation
        is_together = all(trial.generation == generation and trial.status == "waiting" for trial in alive)
        return generation if generation and is_together and generation not in self._settled else None

    def takeovers(self, generation: int) -> list[Exploit]:
        """Who goes on from whom."""
        alive = [trial for trial in self.state.trials.values() if not trial.has_ended]
        scores = {trial.number: trial.score(self.plan.sweep) for trial in alive}
        values = {trial.number: trial.values for trial in alive}
        return exploits(self.plan.sweep, scores, values, generation=generation)

    def _size(self) -> int | None:
        wanted, there = self.plan.sweep.num_trials, self._searcher.size
        if there is None:
            return wanted
        if wanted is not None and wanted < there:
            logger.info("the grid has %d sets of values; num_trials=%d tries the first", there, wanted)
        return there if wanted is None else min(wanted, there)

    def _may_begin(self, trial: Trial) -> bool:
        if not self.is_population or trial.generation == 0:
            return True
        return trial.generation in self._settled

    def _new_trial(self) -> Trial | None:
        number = self.sets_begun
        if self.size is not None and number >= self.size:
            return None
        values = self._searcher.suggest(number)
        if values is None:
            return None
        first, base = len(self.state.trials), self.plan.config.seed or 0
        count = self.plan.seeds
        seeds = [None] if count == 1 else [base + repeat for repeat in range(count)]
        self._write_set(number, values, list(range(first, first + count)), seeds)
        return self.state.trials[first]

    def _write_set(self, number: int, values: dict[str, Any], trials: list[int], seeds: list[Any]) -> None:
        if self._journal is None:
            self._journal = Journal(self.plan.folder)
        self.state.apply(self._journal.add("set", set=number, values=values, trials=trials, seeds=seeds))

    def _learn(self, event: Event) -> str:
        """Everybody takes the event in; why the trial it concerns should stop."""
        if event["event"] == "set":  # from the journal: bring the searcher to where it stood
            self._ask_again(event)
        self.state.apply(event)
        if event["event"] == "generation":
            self._settled.add(event["generation"])
        if event["event"] == "report":
            return self._of_report(self.state.trials[event["trial"]])
        if event["event"] == "end":
            self._of_end(self.state.trials[event["trial"]])
        return ""

    def _of_report(self, trial: Trial) -> str:
        step, value = trial.reports[-1]
        if self.plan.seeds == 1 and math.isfinite(value):
            self._searcher.reported(trial.set_number, step=step, value=value)
        said = [stopper.says(trial.number, step=step, value=value) for stopper in self._stoppers]
        return next((reason for reason in said if reason), "")

    def _of_end(self, trial: Trial) -> None:
        repeats = self.state.of_set(trial.set_number)
        if all(other.has_ended for other in repeats):
            ok = [other for other in repeats if other.status != "failed"]
            self._searcher.ended(trial.set_number, set_score(ok, self.plan.sweep) if ok else None)

    def _ask_again(self, event: Event) -> None:
        values = self._searcher.suggest(event["set"])
        if values != event["values"] and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "searcher %s, told what happened before, does not suggest what it did then (another version of its "
                "library?). Finished trials are kept as they are; it searches on with what it makes of them.",
                self.plan.sweep.searcher.type,
            )
