"""What comes next, and that a queue told a journal stands where the one that wrote it stood."""

from __future__ import annotations

from lerobot_ray.sweeps.journal import JOURNAL_FILE, read_journal
from lerobot_ray.sweeps.queue import TrialQueue
from lerobot_ray.sweeps.table import trials_table
from lerobot_ray.sweeps.trial import best_trial, rebuilt
from lerobot_ray.sweeps.use import use_of
from tests.sweeps.sweeps import plan_of


def started(plan, earlier=()) -> TrialQueue:
    queue = TrialQueue(plan, list(earlier))
    queue.record("start", sweep=plan.fingerprint(), slots=2, steps=plan.steps, words=[])
    return queue


def train(queue, trial, values, *, to=None) -> str:
    """Reports every 10 steps from where it stood, then an end; why it should have stopped, if it should."""
    queue.record("begin", trial=trial.number, slot=0)
    reason = ""
    for place, value in enumerate(values):
        step = 10 * (place + 1)
        if step <= trial.step:
            continue
        reason = queue.record("report", trial=trial.number, step=step, value=value)
        if reason or step == to:
            break
    if to is None:
        status = "stopped" if reason else "finished"
        queue.record("end", trial=trial.number, status=status, reason=reason, step=step)
    return reason


def test_after_a_crash_the_interrupted_trial_is_first(tmp_path):
    plan = plan_of(tmp_path, searcher="optuna", num_trials=4)
    queue = started(plan)
    train(queue, queue.next_trial(), [3.0, 2.0])
    broken = queue.next_trial()
    train(queue, broken, [3.0, 2.5, 2.0], to=20)
    with (plan.folder / JOURNAL_FILE).open("ab") as file:
        file.write(b'{"event": "repo')  # torn by the kill

    again = started(plan, read_journal(plan.folder))
    assert again.state.trials[broken.number].status == "interrupted"
    assert again.next_trial().number == broken.number
    train(again, again.state.trials[broken.number], [3.0, 2.5, 2.0])
    following = again.next_trial()
    assert following.number == 2

    unbroken = started(plan_of(tmp_path / "other", searcher="optuna", num_trials=4))
    for values in ([3.0, 2.0], [3.0, 2.5, 2.0]):
        train(unbroken, unbroken.next_trial(), values)
    assert unbroken.next_trial().values == following.values, "the searcher has learned the same"


def test_seeds_repeat_a_set_and_it_is_judged_by_their_mean(tmp_path):
    queue = started(plan_of(tmp_path, "--seed=7", seeds=3, num_trials=2))
    trials = []
    while (trial := queue.next_trial()) is not None:
        trials.append(trial)
        train(queue, trial, [float(trial.number)])
    assert [(trial.set_number, trial.seed) for trial in trials] == [(0, 7), (0, 8), (0, 9), (1, 7), (1, 8), (1, 9)]
    assert trials[0].values == trials[2].values != trials[3].values
    assert "mean of seeds" in trials_table(queue.state)


def test_a_failed_trial_is_kept_with_its_reason(tmp_path):
    queue = started(plan_of(tmp_path, num_trials=2))
    first = queue.next_trial()
    queue.record("begin", trial=0, slot=0)
    queue.record("end", trial=0, status="failed", reason="a loss is not finite", step=3)
    train(queue, queue.next_trial(), [2.0])
    assert queue.next_trial() is None
    assert best_trial(queue.state).number == 1
    assert trials_table(queue.state).splitlines()[-1].endswith("failed: a loss is not finite")
    assert first.score(queue.plan.sweep) is None


def test_finished_trials_come_before_stopped_ones(tmp_path):
    queue = started(plan_of(tmp_path, num_trials=3, scheduler={"type": "asha", "grace_steps": 10}))
    train(queue, queue.next_trial(), [1.0] * 10)
    assert train(queue, queue.next_trial(), [2.0] * 10) == "asha at step 10"
    assert best_trial(queue.state).number == 0
    use = use_of(queue.state)
    assert (use.steps, use.full_steps) == (110, 200)
    assert abs(use.saved - 0.45) < 1e-9


def test_a_population_goes_on_together(tmp_path):
    plan = plan_of(tmp_path, "--log_freq=10", num_trials=4, scheduler={"type": "pbt", "interval": 50})
    queue = started(plan)
    for place in range(4):
        trial = queue.next_trial()
        assert queue.leg_end(trial) == 50
        assert queue.generation_due() is None
        train(queue, trial, [1.0 + place], to=10)
        queue.record("leg", trial=trial.number, step=50)
    assert queue.next_trial() is None, "nobody goes on before the population was looked at"
    assert queue.generation_due() == 1
    (found,) = queue.takeovers(1)
    assert (found.trial, found.donor) == (3, 0)
    entries = [{"trial": found.trial, "donor": found.donor, "values": found.values}]
    queue.record("generation", generation=1, step=50, exploits=entries)
    assert queue.generation_due() is None
    assert queue.leg_end(queue.next_trial()) == 100
    assert queue.state.trials[3].values == found.values
    again = rebuilt(plan.sweep, read_journal(plan.folder))
    assert again.trials[3].values == found.values
    assert again.trials[3].took_over == [(50, 0)]
