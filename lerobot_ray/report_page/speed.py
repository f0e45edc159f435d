"""The sections on time and memory: where a step's time goes, throughput, and how much memory it took."""

from __future__ import annotations

import numpy as np

from lerobot_ray.report_page.curves import restarts
from lerobot_ray.report_page.line_chart import HALF, THIRD, WIDE, Curve, Shape, line_chart
from lerobot_ray.report_page.markup import figure, grid, legend, section
from lerobot_ray.report_page.run_folder import RunFolder
from lerobot_ray.report_page.stack_chart import share_bar, stack_chart
from lerobot_ray.report_page.step_time import StepTime, at_steps
from lerobot_ray.report_page.words import duration, percent, short
from lerobot_ray.tracking.metric_log import Series


def speed(run: RunFolder) -> str:
    pieces = []
    if run.step_time is not None:
        layers = run.step_time.layers
        picture = stack_chart(run.step_time.step, layers, last_step=run.last_step, shape=WIDE)
        pieces.append(
            figure(
                "Seconds per step",
                share_bar([(layer.name, layer.colour, run.step_time.total_s(layer)) for layer in layers]) + picture,
                note="of the slowest rank; by the clock between log lines, start-up left out",
                wide=True,
            )
        )
    pieces.append(
        grid(lambda shape: [part(run, shape) for part in (_throughput, _waiting, _memory)], half=HALF, third=THIRD)
    )
    return section("speed", "Speed", _sentence(run.step_time), *pieces)


def _sentence(times: StepTime | None) -> str:
    if times is None:
        return "The time of steps was not measured."
    median = float(np.median(sum((layer.value for layer in times.layers), np.zeros(len(times.step)))))
    update, waiting = times.share("forward, backward, update"), times.share("waiting for data")
    return (
        f"A step took {duration(median)} in the median. {percent(update)} of the time went into training itself, "
        f"{percent(waiting)} into waiting for data."
    )


def _throughput(run: RunFolder, shape: Shape) -> str:
    rate = run.log.series.get("train/samples_per_s")
    if rate is None or not len(rate.finite.step):
        return ""
    curve = Curve("samples per second", rate, "c3")
    picture = line_chart([curve], last_step=run.last_step, shape=shape, marks=restarts(run), from_zero=True, unit="/s")
    return figure("Samples per second", picture, note="over all workers")


def _waiting(run: RunFolder, shape: Shape) -> str:
    wait, whole = (run.log.series.get(f"train/{name}") for name in ("dataloading_s", "step_s"))
    if wait is None or whole is None or not len(whole.step):
        return ""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(whole.value > 0, 100 * at_steps(wait, whole.step) / whole.value, np.nan)
    series = Series(whole.step, np.minimum(share, 100.0), whole.time_s, whole.attempt)
    top = 100.0 if series.finite.value.max(initial=0.0) > 40 else None
    picture = line_chart(
        [Curve("waiting for data", series, "c2")],
        last_step=run.last_step,
        shape=shape,
        marks=restarts(run),
        from_zero=True,
        top=top,
        unit=" %",
    )
    return figure("Waiting for data, % of a step", picture)


def _memory(run: RunFolder, shape: Shape) -> str:
    names = {"train/gpu_mem_gb": ("device", "c4"), "train/mem_gb": ("host", "c1")}
    curves = [
        Curve(title, run.log.series[name], colour, "plain")
        for name, (title, colour) in names.items()
        if name in run.log.series
    ]
    if not curves:
        return ""
    peak = max(float(curve.series.finite.value.max(initial=0.0)) for curve in curves)
    picture = line_chart(curves, last_step=run.last_step, shape=shape, marks=restarts(run), from_zero=True, unit=" GB")
    names_shown = legend((curve.colour, curve.name) for curve in curves) if len(curves) > 1 else ""
    return figure("Memory, GB", picture, key=names_shown, note=f"highest {short(peak)}")
