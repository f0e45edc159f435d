"""The driver of a sweep: keeps every slot at a trial until there are none left, and says how it went.

Trials are not started through `tune.Tuner`: Ray Tune chooses values and ends trials (`searchers`, `stoppers`), and this
places them. A trial is one of our training runs in a slot's processes, which stay; what happens is in a journal, so
that a sweep whose driver died goes on with the very next line. `docs/sweeps.md` has what that saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from typing import Any

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.on_ray.ending import say, text_of
from lerobot_ray.on_ray.run_folder import claimed
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.trainer import noted_signals
from lerobot_ray.on_ray.wrapped import own_error
from lerobot_ray.sweeps.banner import banner
from lerobot_ray.sweeps.parent_run import ParentRun
from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.queue import TrialQueue
from lerobot_ray.sweeps.rollouts import TrialRollouts
from lerobot_ray.sweeps.slot import Slot
from lerobot_ray.sweeps.table import trial_line
from lerobot_ray.sweeps.takeover import install, set_aside
from lerobot_ray.sweeps.trial import Trial
from lerobot_ray.sweeps.trial_run import TrialRuns

logger = logging.getLogger(__name__)

POLL_S = 0.1
SAYS_EVERY_S = 60.0
MOST_STARTS = 10
"""How often a trial that leaves its slot without an end is begun again."""
MOST_REBIRTHS = 3
"""How often a slot whose Ray Train run broke down is set up anew."""


class Driver:
    """One start of a sweep."""

    def __init__(self, plan: SweepPlan, queue: TrialQueue, runs: TrialRuns) -> None:
        self._plan, self._queue, self._runs = plan, queue, runs
        self._parent: ParentRun | None = None
        self._slots: list[Slot] = []
        self._claims: dict[int, contextlib.ExitStack] = {}
        self._rollouts: dict[int, TrialRollouts] = {}
        """Of the trials that are at a slot, as the claims are."""
        self._rebirths = 0
        self.received: list[int] = []
        self._began_s = self._said_s = time.time()
        self._steps: dict[int, int] = {}
        """Trial -> the step it was last heard of at."""
        self._to_report: list[Trial] = []

    @property
    def is_interrupted(self) -> bool:
        return bool(self.received)

    def run(self) -> None:
        """Until every trial has ended, or somebody asks to stop. Trials that are running then save and leave."""
        plan, queue = self._plan, self._queue
        say(banner(plan, queue.state, needs=self._runs.needs, at_once=self._runs.at_once, size=queue.size))
        queue.record(
            "start", sweep=plan.fingerprint(), slots=self._runs.at_once, steps=plan.steps, words=list(plan.words)
        )
        with noted_signals(self.received):
            try:
                self._slots = [self._new_slot(number) for number in range(self._runs.at_once)]
                self._parent = ParentRun.begun(plan, self._runs.config, self._runs.mlflow_uri)
                self._runs.parent_run = self._parent.run_id if self._parent else None
                self._loop()
            finally:
                for slot in self._slots:
                    slot.close()
                for claim in self._claims.values():
                    claim.close()
                if self._parent is not None:
                    self._parent.end(queue.state, is_interrupted=self.is_interrupted)
        if not self.is_interrupted:
            queue.record("done")

    def _loop(self) -> None:
        asked = False
        while True:
            if self.received and not asked:
                asked = True
                say("stopping: running trials save a checkpoint first; once more to stop at once")
                self._stop_running("")
            if len(self.received) > 1:
                raise KeyboardInterrupt
            self._listen()
            self._settle_generation()
            if not (asked or self._is_late()):
                self._fill()
            self._write_one_report()
            self._say_where()
            if all(slot.trial is None for slot in self._slots):  # nothing more can begin
                while self._to_report:
                    self._write_one_report()
                return
            time.sleep(POLL_S)

    def _listen(self) -> None:
        """What the slots have to say."""
        import ray

        for slot in self._slots:
            if slot.trial is None:
                continue
            with contextlib.suppress(ray.exceptions.GetTimeoutError):
                try:
                    notes = ray.get(slot.take(), timeout=30)
                except ray.exceptions.RayActorError:
                    notes = []
                    slot.error = slot.error or RuntimeError("its board was lost")
                for kind, value in notes:
                    if slot.trial is not None:  # a last log line may come after its end
                        self._note(slot, kind, value)
            if slot.trial is not None and (slot.error is not None or not slot.is_alive):
                self._replace(slot)
            elif slot.trial is not None:
                self._play(slot, self._queue.state.trials[slot.trial])

    def _note(self, slot: Slot, kind: str, value: Any) -> None:
        assert slot.trial is not None
        trial = self._queue.state.trials[slot.trial]
        if kind == "step":
            self._steps[trial.number] = value
        elif kind == "numbers":
            self._report(slot, trial, *value)
        elif kind == "log" and value[0] >= logging.WARNING:
            say(f"trial {trial.name}: {value[1]}")
        elif kind == "checkpoint":
            self._rollouts[trial.number].add(value)
        elif kind == "done":
            self._rollouts[trial.number].trained(*value[1:])

    def _play(self, slot: Slot, trial: Trial) -> None:
        """Rollouts of its checkpoints. When its training is over, and nobody waits for more of them, it is done."""
        rollouts = self._rollouts[trial.number]
        rollouts.poll()
        if rollouts.left is None:
            return
        step, failure = rollouts.left
        is_through = not failure and (step or 0) >= self._queue.leg_end(trial)
        if not (is_through and rollouts.is_open):
            self._done(slot, trial, step, failure)
        elif self.is_interrupted:
            self._free(slot, trial)
            self._queue.record("pause", trial=trial.number, step=step)

    def _report(self, slot: Slot, trial: Trial, step: int, numbers: dict[str, float]) -> None:
        value = numbers.get(self._plan.sweep.metric)
        if value is None or step <= (trial.reports[-1][0] if trial.reports else 0):
            return  # steps trained again after an interruption were reported before
        told = float(value) if math.isfinite(value) else None
        reason = self._queue.record("report", trial=trial.number, step=step, value=told)
        is_training = self._rollouts[trial.number].left is None
        if reason and not trial.verdict and step < self._plan.steps and is_training:
            self._verdict(slot, trial, reason)

    def _verdict(self, slot: Slot, trial: Trial, reason: str) -> None:
        self._queue.record("verdict", trial=trial.number, reason=reason)
        slot.stop(reason)

    def _done(self, slot: Slot, trial: Trial, step: int | None, failure: str) -> None:
        """A trial has left its slot."""
        queue, reached = self._queue, max(step or 0, 0)
        is_stopped = bool(trial.verdict) and not failure and reached < self._plan.steps
        self._free(slot, trial, is_stopped=is_stopped)
        if failure:
            status, reason = "failed", failure
        elif reached >= self._plan.steps:
            status, reason = "finished", ""
        elif is_stopped:
            status, reason = "stopped", trial.verdict
        elif queue.is_population and reached >= queue.leg_end(trial):
            queue.record("leg", trial=trial.number, step=reached)
            return
        elif len(trial.spans) < MOST_STARTS or self.is_interrupted:
            queue.record("pause", trial=trial.number, step=reached)
            return
        else:
            status, reason = "failed", f"it was begun {len(trial.spans)} times and came to no end"
        if status == "finished" and not trial.reports:
            status, reason = (
                "failed",
                f"it never reported {self._plan.sweep.metric}; it has {self._runs.reported(trial)}",
            )
        queue.record("end", trial=trial.number, status=status, reason=reason, step=reached)
        say(trial_line(queue.state, trial))
        self._to_report.append(trial)

    def _free(self, slot: Slot, trial: Trial, *, is_stopped: bool = False) -> None:
        """The slot is for another trial from now on, this one's folder for whoever wants it."""
        slot.trial = None
        rollouts = self._rollouts.pop(trial.number)
        if is_stopped:
            rollouts.let_go()
        else:
            rollouts.settle()
        self._claims.pop(trial.number).close()

    def _replace(self, slot: Slot) -> None:
        """A slot's Ray Train run has broken down: it begins anew, and so does its trial, but not for ever."""
        assert slot.trial is not None
        trial = self._queue.state.trials[slot.trial]
        why = "its slot ended" if slot.error is None else str(own_error(slot.error) or text_of(slot.error))
        say(f"slot {slot.number} broke down: {why}")
        if len(trial.spans) > MOST_REBIRTHS:
            self._done(slot, trial, None, why)
        else:
            self._free(slot, trial)
            self._queue.record("pause", trial=trial.number, step=trial.step)
        self._rebirths += 1
        if self._rebirths > MOST_REBIRTHS * self._runs.at_once:
            raise LerobotRayError(f"slots break down again and again, the last time because: {why}")
        self._slots[self._slots.index(slot)] = self._new_slot(slot.number)

    def _fill(self) -> None:
        for slot in self._slots:
            while slot.trial is None and (trial := self._queue.next_trial()) is not None:
                if trial.verdict:  # told to stop before the driver died
                    self._queue.record(
                        "end", trial=trial.number, status="stopped", reason=trial.verdict, step=trial.step
                    )
                    continue
                self._begin(slot, trial)

    def _begin(self, slot: Slot, trial: Trial) -> None:
        claim = contextlib.ExitStack()
        try:
            folder = self._plan.trial_folder(trial.number)
            claim.enter_context(claimed(folder))
            for generation in range(trial.generation + 1):
                install(folder, generation=generation)
            setup = self._runs.setup(
                trial, stop_at=self._queue.leg_end(trial), keeps_own_rates=self._queue.is_population
            )
            rollouts = claim.enter_context(contextlib.closing(self._rollouts_of(slot, trial, setup)))
        except LerobotRayError as error:
            claim.close()
            self._queue.record("end", trial=trial.number, status="failed", reason=str(error), step=0)
            say(trial_line(self._queue.state, trial))
            return
        self._claims[trial.number], self._rollouts[trial.number] = claim, rollouts
        self._queue.record("begin", trial=trial.number, slot=slot.number)
        slot.begin(trial.number, setup)
        rollouts.report_known()

    def _rollouts_of(self, slot: Slot, trial: Trial, setup: RunSetup) -> TrialRollouts:
        return TrialRollouts(
            setup,
            deliver=slot.board.deliver.remote,
            report=lambda result: self._report(slot, trial, result.step, result.numbers),
            say=lambda text: say(f"trial {trial.name}: {text}"),
        )

    def _settle_generation(self) -> None:
        generation = self._queue.generation_due()
        if generation is None:
            return
        plan, found = self._plan, self._queue.takeovers(generation)
        step = max(trial.step for trial in self._queue.state.trials.values())
        for entry in found:
            set_aside(plan.trial_folder(entry.donor), plan.trial_folder(entry.trial), generation=generation)
        entries = [dataclasses.asdict(entry) for entry in found]
        self._queue.record("generation", generation=generation, step=step, exploits=entries)
        for entry in found:
            install(plan.trial_folder(entry.trial), generation=generation)
            say(f"step {step:,}: trial {entry.trial:03d} goes on from trial {entry.donor:03d} with {entry.values}")

    def _is_late(self) -> bool:
        """Whether time is over: for single trials, which are stopped, or for the sweep."""
        stop, now = self._plan.sweep.stop, time.time()
        for slot in self._slots if stop.trial_minutes is not None else ():
            trial = self._queue.state.trials.get(-1 if slot.trial is None else slot.trial)
            if trial is not None and not trial.verdict and trial.busy_s(now) > 60 * (stop.trial_minutes or 0):
                self._verdict(slot, trial, f"its {stop.trial_minutes:g} minutes are over")
        if stop.minutes is None or now - self._began_s < 60 * stop.minutes:
            return False
        self._stop_running(f"the sweep's {stop.minutes:g} minutes are over")
        return True

    def _stop_running(self, verdict: str) -> None:
        """Ask all to leave; with a verdict that is their end, without they can be continued."""
        for slot in self._slots:
            trial = None if slot.trial is None else self._queue.state.trials[slot.trial]
            if trial is not None and verdict and not trial.verdict:
                self._verdict(slot, trial, verdict)
            elif trial is not None and not verdict:
                slot.stop("the sweep was asked to stop")

    def _say_where(self) -> None:
        """Now and then, for who waits."""
        state, now = self._queue.state, time.time()
        running = [slot.trial for slot in self._slots if slot.trial is not None]
        if not running or now - self._said_s < SAYS_EVERY_S:
            return
        self._said_s = now
        where = ", ".join(f"trial {number:03d} {self._place_of(number)}" for number in running)
        ended = sum(trial.has_ended for trial in state.trials.values())
        all_of_them = (self._queue.size or 0) * self._plan.seeds
        say(f"{where} of {self._plan.steps:,}; {ended} of {all_of_them} trials ended")

    def _place_of(self, number: int) -> str:
        rollouts = self._rollouts[number]
        return f"at step {self._steps.get(number, 0):,}" if rollouts.left is None else f"is played ({rollouts.state})"

    def _new_slot(self, number: int) -> Slot:
        config = self._runs.config.ray
        return Slot(
            number,
            self._runs.workers,
            folder=self._plan.folder,
            config=config,
            max_failures=-1 if config.max_failures < 0 else (config.max_failures + 2) * max(1, self._queue.size or 1),
        )

    def _write_one_report(self) -> None:
        """The page of a trial that has ended, and the sweep's so far, while others are training."""
        if not self._to_report:
            return
        trial = self._to_report.pop(0)
        from lerobot_ray.report_page import write_report
        from lerobot_ray.sweeps.page import write_page

        with contextlib.suppress(LerobotRayError, OSError, ValueError):  # a page is not worth a sweep
            write_report(self._plan.trial_folder(trial.number))
            write_page(self._plan, self._queue.state)
