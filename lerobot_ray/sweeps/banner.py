"""What a sweep is about to do, in a few lines, before it does."""

from __future__ import annotations

from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.room import TrialNeeds
from lerobot_ray.sweeps.trial import SweepState, best_trial


def banner(plan: SweepPlan, state: SweepState, *, needs: TrialNeeds, at_once: int, size: int | None) -> str:
    """What is tried, how, how much at once, where results go, and what there is of it already."""
    sweep, best = plan.sweep, best_trial(state)
    lines = [
        ("sweep", f"{plan.name}: {', '.join(sweep.space)}"),
        ("metric", f"{sweep.metric}, {'smallest' if sweep.mode == 'min' else 'largest'} is best"),
        ("search", f"{sweep.searcher.type}, scheduler {sweep.scheduler.type}"),
        ("trials", f"{(size or 0) * plan.seeds} of {plan.steps:,} steps, {at_once} at once"),
        ("each", str(needs)),
        ("results", str(plan.folder)),
    ]
    if state.starts:
        done = sum(trial.has_ended for trial in state.trials.values())
        lines.append(("so far", f"{done} ended" + (f", best is trial {best.name}" if best else "")))
    return "\n".join(f"{name:>8}  {value}" for name, value in lines)
