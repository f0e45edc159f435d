"""The sections with curves of learning: losses, learning rate, gradients, and whatever else the policy reports."""

from __future__ import annotations

import numpy as np

from lerobot_ray.report_page.head import HELD_OUT
from lerobot_ray.report_page.line_chart import HALF, SMOOTH_FROM, THIRD, WIDE, Curve, Marks, Shape, line_chart
from lerobot_ray.report_page.markup import figure, grid, legend, section
from lerobot_ray.report_page.run_folder import RunFolder
from lerobot_ray.report_page.words import short

_COLOURS = ("c1", "c2", "c3", "c4", "c5")
_TIMES = {"step_s", "dataloading_s", "preprocessing_s", "update_s", "checkpoint_s", "samples_per_s"}
_COUNTS = {"epochs", "samples", "steps", "episodes", "ema_step", "ema_updates", "gpu_mem_gb", "mem_gb"}
_SHOWN = {"loss", "grad_norm", "skipped_steps", "ema_decay"}
MAX_OWN_CHARTS = 24


def learning(run: RunFolder) -> str:
    """Training and held-out losses together, then the rest of what tells how learning went."""
    series, marks = run.log.series, restarts(run)
    curves = []
    if "train/loss" in series:
        curves.append(Curve("training", series["train/loss"], "c1"))
    held_out = sorted((name for name in series if name.startswith("eval/") and "loss" in name), key=_main_first)
    for colour, name in zip(("c2", "c4", "c3"), held_out, strict=False):
        curves.append(Curve(_held_out_name(name), series[name], colour, "points"))
    if not curves:
        return section("learning", "Learning", "No loss has been logged yet.")
    picture = line_chart(curves, last_step=run.last_step, shape=WIDE, marks=marks, may_be_log=True)
    names = [(curve.colour, curve.name) for curve in curves]
    is_smoothed = len(curves[0].series.step) >= SMOOTH_FROM and curves[0].style == "noisy"
    notes = ["pale: every log line, strong: running mean"] * is_smoothed + ["dashed: restarts"] * bool(marks.restarts)
    skipped = series.get("train/skipped_steps")
    has_skipped = skipped is not None and skipped.finite.value.sum() > 0

    def small(shape: Shape) -> list[str]:
        return [
            _small(run, "train/grad_norm", "Gradient norm, before clipping", shape, may_be_log=True),
            _learning_rates(run, shape),
            _small(run, "train/ema_decay", "Decay of the average (EMA)", shape),
            _small(run, "train/skipped_steps", "Share of steps skipped: loss not finite", shape) if has_skipped else "",
        ]

    return section(
        "learning",
        "Learning",
        _sentence(run, held_out),
        figure("Loss", picture, key=legend(names) if len(names) > 1 else "", note="; ".join(notes), wide=True),
        grid(small, half=HALF, third=THIRD),
        "" if held_out else _no_held_out(run),
    )


def own_numbers(run: RunFolder) -> str:
    """What the policy's forward returned beside the loss."""
    names = [
        name
        for name in sorted(run.log.series)
        if name.startswith("train/")
        and name.removeprefix("train/") not in _TIMES | _COUNTS | _SHOWN
        and not name.startswith("train/lr")
    ]
    if not names:
        return ""

    def shown(shape: Shape) -> list[str]:
        return [
            _small(run, name, name.removeprefix("train/"), shape, may_be_log=True) for name in names[:MAX_OWN_CHARTS]
        ]

    more = f" {len(names) - MAX_OWN_CHARTS} more are in metrics.jsonl." if len(names) > MAX_OWN_CHARTS else ""
    return section(
        "policy",
        "The policy's own numbers",
        f"What its forward pass reports beside the loss.{more}",
        grid(shown, half=HALF, third=THIRD),
    )


def restarts(run: RunFolder) -> Marks:
    return Marks(tuple(attempt.first_step for attempt in run.log.attempts[1:]))


def _small(run: RunFolder, name: str, caption: str, shape: Shape, *, may_be_log: bool = False) -> str:
    series = run.log.series.get(name)
    if series is None or not len(series.step):
        return ""
    picture = line_chart(
        [Curve(caption, series)], last_step=run.last_step, shape=shape, marks=restarts(run), may_be_log=may_be_log
    )
    return figure(caption, picture)


def _learning_rates(run: RunFolder, shape: Shape) -> str:
    names = [name for name in sorted(run.log.series) if name == "train/lr" or name.startswith("train/lr_")]
    curves = [
        Curve(name.removeprefix("train/"), run.log.series[name], colour, "plain")
        for colour, name in zip(_COLOURS, names, strict=False)
    ]
    if not curves:
        return ""
    picture = line_chart(curves, last_step=run.last_step, shape=shape, marks=restarts(run), from_zero=True)
    names_shown = legend((curve.colour, curve.name) for curve in curves) if len(curves) > 1 else ""
    return figure("Learning rate", picture, key=names_shown)


def _main_first(name: str) -> tuple[bool, str]:
    return name not in HELD_OUT, name


def _held_out_name(name: str) -> str:
    short_name = name.removeprefix("eval/")
    return (
        "held out"
        if short_name in ("loss", "eval_loss")
        else f"held out, {short_name.replace('_loss', '').replace('_', ' ')}"
    )


def _sentence(run: RunFolder, held_out: list[str]) -> str:
    finite = run.log.series["train/loss"].finite.value if "train/loss" in run.log.series else np.zeros(0)
    if not len(finite):
        return ""
    few = max(1, len(finite) // 50)
    said = f"The training loss went from {short(float(finite[:few].mean()))} to {short(float(finite[-few:].mean()))}"
    other = run.log.series[held_out[0]].finite if held_out else None
    if other is None or not len(other.value):
        return f"{said}."
    best = int(other.value.argmin())
    where = "at the end" if best == len(other.value) - 1 else f"at step {other.step[best]:,}"
    rose = "" if best == len(other.value) - 1 else f", and is {short(float(other.value[-1]))} now"
    return f"{said}. On held-out episodes it was lowest {where}, {short(float(other.value[best]))}{rose}."


def _no_held_out(run: RunFolder) -> str:
    if (run.config.get("dataset") or {}).get("eval_split"):
        return "<p class=empty>No held-out loss yet: it is computed every --eval_steps steps.</p>"
    return "<p class=empty>No episodes were held out (--dataset.eval_split), so there is no held-out loss.</p>"
