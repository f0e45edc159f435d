"""Curves over training steps, as SVG, with the numbers behind them for whoever hovers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lerobot_ray.report_page.scale import Scale, value_scale, wants_log
from lerobot_ray.report_page.thin import Envelope, envelope, smoothed
from lerobot_ray.report_page.words import on_axis
from lerobot_ray.tracking.metric_log import Series

Shape = tuple[int, int]
WIDE, HALF, THIRD = (1040, 270), (510, 200), (330, 190)
"""Width and height in picture units, which are pixels on a wide screen."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
SMOOTH_FROM = 24
"""A curve of fewer points is drawn as it is."""


@dataclass(frozen=True)
class Curve:
    """One series in a chart. `colour` is a class of the page's style sheet: c1 to c5."""

    name: str
    series: Series
    colour: str = "c1"
    style: str = "noisy"
    """noisy: raw and pale, with its running mean on top. plain: a line. points: a line with a mark on each value."""
    band: tuple[np.ndarray, np.ndarray] | None = None
    """Lower and upper bound of each value, drawn behind a curve that is not thinned."""


@dataclass(frozen=True)
class Marks:
    """What else happened at steps: vertical lines."""

    restarts: tuple[int, ...] = ()


def line_chart(
    curves: Sequence[Curve],
    *,
    last_step: int,
    shape: Shape = HALF,
    marks: Marks | None = None,
    may_be_log: bool = False,
    from_zero: bool = False,
    top: float | None = None,
    unit: str = "",
) -> str:
    """The SVG. `top` fixes the upper end of the axis. A legend is the caller's, where there is more than one curve."""
    width, height = shape
    values = np.concatenate([curve.series.value for curve in curves]) if curves else np.zeros(0)
    is_log = may_be_log and wants_log(values)
    across = Scale(0, max(last_step, 1), _LEFT, width - _RIGHT)
    up = value_scale(values, height - _BOTTOM, _TOP, is_log=is_log, from_zero=from_zero)
    if top is not None:
        up = Scale(0, top, height - _BOTTOM, _TOP)
    drawn, hover = [], []
    for curve in curves:
        picture, numbers = _draw(curve, across, up)
        drawn.append(picture)
        hover += numbers
    lost = np.concatenate([curve.series.step[~np.isfinite(curve.series.value)] for curve in curves])
    data = {"plot": [_LEFT, _TOP, width - _RIGHT, height - _BOTTOM], "last": across.high, "unit": unit, "curves": hover}
    return (
        f"<svg class=chart viewBox='0 0 {width} {height}' role=img data-chart='{escape(json.dumps(data))}'>"
        f"{axes(across, up, width, height)}{_restart_lines(marks, across, height)}{''.join(drawn)}"
        f"{_not_finite(lost, across)}<g class=cursor></g></svg>"
    )


def axes(across: Scale, up: Scale, width: int, height: int) -> str:
    """Grid lines, their values, and the steps below."""
    parts = []
    for value in up.ticks(4 if height < 240 else 5):
        y = round(float(up.place(value)), 1)
        parts.append(f"<path class=rule d='M{_LEFT} {y}H{width - _RIGHT}'/>")
        parts.append(f"<text x={_LEFT - 7} y={y + 3.5} class=e>{on_axis(value)}</text>")
    steps = [value for value in across.ticks(8 if width > 700 else width // 100) if value == int(value)]
    for value in steps:
        x = round(float(across.place(value)), 1)
        unit = " steps" if value == steps[-1] and len(steps) > 1 else ""
        anchor = " class=e" if x > width - 30 else " class=m" if x > _LEFT + 5 else ""
        parts.append(f"<text x={x} y={height - 6}{anchor}>{on_axis(value)}{unit}</text>")
    return "".join(parts)


def path(x: np.ndarray, y: np.ndarray) -> str:
    """An SVG path through points; one that is not a number breaks it."""
    pieces, pen = [], "M"
    for place_x, place_y in zip(x.tolist(), y.tolist(), strict=True):
        if place_y != place_y:
            pen = "M"
            continue
        pieces.append(f"{pen}{place_x:.1f} {place_y:.1f}")
        pen = "L"
    return "".join(pieces)


def _draw(curve: Curve, across: Scale, up: Scale) -> tuple[str, list[dict]]:
    series = curve.series
    raw = envelope(series.step, series.value)
    if not len(raw.step):
        return "", []
    if curve.style != "noisy" or len(series.step) < SMOOTH_FROM:
        marks = ""
        if curve.style == "points" or len(raw.step) < 3:
            places = zip(across.place(raw.step).tolist(), up.place(raw.mean).tolist(), strict=True)
            marks = "".join(f"<circle class='fill {curve.colour}' cx={x:.1f} cy={y:.1f} r=2.6 />" for x, y in places)
        line = f"<path class='line {curve.colour}' d='{path(across.place(raw.step), up.place(raw.mean))}'/>"
        if curve.band is not None and raw.is_exact:
            raw = dataclasses.replace(raw, low=curve.band[0], high=curve.band[1], is_exact=False)
        return _band(raw, across, up, curve.colour) + line + marks, [_hover(curve, raw.step, raw.mean)]
    # What the axis cuts off is cut before the mean, or one spike would stand as a plateau.
    smooth = envelope(series.step, smoothed(np.clip(series.value, up.low, up.high)))
    if raw.is_exact:
        pale = f"<path class='line raw {curve.colour}' d='{path(across.place(raw.step), up.place(raw.mean))}'/>"
    else:
        pale = _band(raw, across, up, curve.colour)
    bold = f"<path class='line {curve.colour}' d='{path(across.place(smooth.step), up.place(smooth.mean))}'/>"
    return pale + bold, [_hover(curve, smooth.step, smooth.mean)]


def _band(raw: Envelope, across: Scale, up: Scale, colour: str) -> str:
    if raw.is_exact:
        return ""
    x = across.place(np.concatenate([raw.step, raw.step[::-1]]))
    y = up.place(np.concatenate([raw.high, raw.low[::-1]]))
    return f"<path class='band {colour}' d='{path(x, y)}Z'/>"


def _hover(curve: Curve, step: np.ndarray, value: np.ndarray) -> dict:
    return {
        "name": curve.name,
        "colour": curve.colour,
        "x": step.tolist(),
        "y": [float(f"{number:.4g}") for number in value],
    }


def _restart_lines(marks: Marks | None, across: Scale, height: int) -> str:
    lines = []
    for step in marks.restarts if marks else ():
        x = round(float(across.place(step)), 1)
        title = f"<title>continued from step {step:,}</title>"
        lines.append(f"<path class=restart d='M{x} {_TOP}V{height - _BOTTOM}'>{title}</path>")
    return "".join(lines)


def _not_finite(steps: np.ndarray, across: Scale) -> str:
    """A mark at the top for each of the first values that was not finite."""
    marks = []
    for step in steps[:50].tolist():
        x = float(across.place(step))
        marks.append(f"<path class=bad d='M{x - 4:.1f} {_TOP}h8l-4 7z'><title>step {step:,}: not finite</title></path>")
    return "".join(marks)
