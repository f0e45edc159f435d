"""A sweep's trials as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from lerobot_ray.report_page.words import duration, short
from lerobot_ray.sweeps.flags import as_text
from lerobot_ray.sweeps.trial import SweepState, Trial, best_trial, ranked, set_score

LONGEST_REASON = 70


def trial_line(state: SweepState, trial: Trial) -> str:
    """One line for a trial that has just ended, with where the sweep stands."""
    best, score = best_trial(state), trial.score(state.sweep)
    values = " ".join(f"{name}={as_text(value)}" for name, value in trial.values.items())
    said = f"trial {trial.name}  {values}" + ("" if trial.seed is None else f" seed={trial.seed}")
    said += f"  {state.sweep.metric} {'–' if score is None else short(score)}  {ending(trial)}"
    said += f", {duration(trial.busy_s())}"
    if best is not None:
        said += f"  · best {short(best.score(state.sweep) or 0.0)} (trial {best.name})"
    return said


def ending(trial: Trial) -> str:
    """How it ended, in a few words."""
    reason = trial.reason if len(trial.reason) <= LONGEST_REASON else f"{trial.reason[:LONGEST_REASON]}…"
    return f"{trial.status} at step {trial.step:,}" + (f" ({reason})" if reason else "")


def trials_table(state: SweepState) -> str:
    """All trials, the best first."""
    names, best = list(state.sweep.space), best_trial(state)
    has_seeds = any(trial.seed is not None for trial in state.trials.values())
    heads = ["", "trial", *names, *(["seed"] if has_seeds else []), state.sweep.metric, "step", "status"]
    if has_seeds:
        heads.insert(-2, "mean of seeds")
    rows = [_row(state, trial, names, trial is best, has_seeds) for trial in ranked(state)]
    return columns([heads, *rows])


def _row(state: SweepState, trial: Trial, names: Sequence[str], is_best: bool, has_seeds: bool) -> list[str]:
    score = trial.score(state.sweep)
    reason = trial.reason if len(trial.reason) <= LONGEST_REASON else f"{trial.reason[:LONGEST_REASON]}…"
    mean = set_score(state.of_set(trial.set_number), state.sweep) if has_seeds else None
    return [
        "*" if is_best else "",
        trial.name,
        *(as_text(trial.values[name]) if name in trial.values else "–" for name in names),
        *([str(trial.seed)] if has_seeds else []),
        "–" if score is None else f"{score:.6g}",
        *(["–" if mean is None else f"{mean:.6g}"] if has_seeds else []),
        str(trial.step),
        trial.status + (f": {reason}" if reason else ""),
    ]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, columns under one another."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
