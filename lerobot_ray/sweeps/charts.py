"""The pictures of a sweep as SVG: parallel coordinates, the metric against a parameter, curves, importance, slots.

Every mark carries the number of its trial, so that pointing at one shows the trial everywhere (`sweep.js`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np

from lerobot_ray.report_page.line_chart import WIDE, axes
from lerobot_ray.report_page.scale import Scale, value_scale, wants_log
from lerobot_ray.report_page.words import on_axis, short
from lerobot_ray.sweeps.flags import as_text
from lerobot_ray.sweeps.importance import is_number
from lerobot_ray.sweeps.trial import Trial

_TOP, _BOTTOM = 34, 22
Spacing = Literal["linear", "log", "list"]
"""How values lie on an axis: by their size, by its logarithm, or side by side."""


@dataclass(frozen=True)
class Shown:
    """A trial as the charts draw it."""

    trial: Trial
    score: float | None
    goodness: float | None
    """1 the best, 0 the worst; None without a score."""
    is_best: bool

    @property
    def mark(self) -> str:
        """Attributes of everything that is this trial's."""
        if self.goodness is None:
            hue = "var(--c5)"
        else:
            hue = f"color-mix(in oklab,var(--c1) {100 * self.goodness:.0f}%,var(--far))"
        best = " best" if self.is_best else ""
        return f"data-trial={self.trial.number} class='t {self.trial.status}{best}' style='--hue:{hue}'"


class Axis:
    """Where values of a parameter, or of the metric, are drawn on a line from `low` to `high`."""

    def __init__(self, values: Sequence[Any], low: float, high: float, *, spacing: Spacing = "linear") -> None:
        known = [value for value in values if value is not None]
        self.is_number = bool(known) and is_number(known) and len(set(known)) > 1
        self._ends = (low, high)
        if self.is_number and spacing != "list":
            array = np.array([value for value in known if math.isfinite(value)], dtype=float)
            as_log = array.min() > 0 and (spacing == "log" or wants_log(array))
            self._scale: Scale | None = value_scale(array, low, high, is_log=bool(as_log))
            self._choices: list[Any] = []
        else:
            self._scale = None
            self._choices = sorted(set(known)) if self.is_number else list(dict.fromkeys(map(_key, known)))

    def place(self, value: Any) -> float | None:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        if self._scale is not None:
            return float(self._scale.place(value))
        low, high = self._ends
        found = self._choices.index(value if self.is_number else _key(value))
        return low + (high - low) * (found + 0.5) / len(self._choices)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        if self._scale is not None:
            return [(float(self._scale.place(value)), on_axis(value)) for value in self._scale.ticks(about)]
        return [(self.place(value) or 0.0, _shown(value)) for value in self._choices]


def _key(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else as_text(value)


def _shown(value: Any) -> str:
    text = on_axis(value) if isinstance(value, int | float) and not isinstance(value, bool) else as_text(value)
    return text if len(text) <= 14 else f"{text[:13]}…"


def parallel(
    shown: Sequence[Shown], names: Sequence[str], metric: str, spacings: Mapping[str, Spacing], *, mode: str
) -> str:
    """A line per trial across one axis per parameter, and the metric's at the right with the best at the top."""
    width, height = WIDE[0], 330
    bottom, top = height - _BOTTOM, _TOP
    columns = [*names, metric]
    across = [70 + place * (width - 140) / max(1, len(columns) - 1) for place in range(len(columns))]
    ends = [(bottom - 14, top + 6)] * len(names) + [(bottom - 14, top + 6) if mode == "max" else (top + 6, bottom - 14)]
    values = [[one.trial.values.get(name) for one in shown] for name in names] + [[one.score for one in shown]]
    scales = [
        Axis(column, *end, spacing=spacings.get(name, "linear"))
        for name, column, end in zip(columns, values, ends, strict=True)
    ]
    parts = []
    for one in sorted(shown, key=_drawn_late):
        where = [axis.place(column[shown.index(one)]) for axis, column in zip(scales, values, strict=True)]
        parts.append(f"<g {one.mark}><path class=strand d='{_strand(across, where, bottom)}'/></g>")
    for name, x, axis in zip(columns, across, scales, strict=True):
        weight = " heavy" if name == metric else ""
        parts.append(f"<path class='axis{weight}' d='M{x:.1f} {top}V{bottom}'/>")
        anchor = "s" if x < 120 else "e" if x > width - 120 else "m"
        shift = {"s": -60, "e": 60, "m": 0}[anchor]
        parts.append(f"<text class='{anchor} title' x={x + shift:.1f} y=14>{escape(name)}</text>")
        for y, text in axis.ticks(5):
            parts.append(f"<path class=tick d='M{x - 4:.1f} {y:.1f}h8'/>")
            side = f"x={x + 9:.1f}" if name == metric else f"x={x - 9:.1f} class=e"
            parts.append(f"<text {side} y={y + 3.5:.1f}>{escape(text)}</text>")
    return f"<svg class=parallel viewBox='0 0 {width} {height}' role=img>{''.join(parts)}</svg>"


def _strand(across: Sequence[float], where: Sequence[float | None], bottom: float) -> str:
    """A smooth line through the axes; what has no place there passes below, and without a score it ends early."""
    places = [bottom if y is None else y for y in where]
    if where[-1] is None:
        across, places = across[:-1], places[:-1]
    pieces = [f"M{across[0]:.1f} {places[0]:.1f}"]
    for x0, y0, x1, y1 in zip(across, places, across[1:], places[1:], strict=False):
        bend = 0.42 * (x1 - x0)
        pieces.append(f"C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return "".join(pieces)


def against(shown: Sequence[Shown], name: str, metric_log: bool, shape: tuple[int, int], *, spacing: Spacing) -> str:
    """The metric over one parameter: a point per trial, hollow where it was stopped."""
    width, height = shape
    seen = [one for one in shown if one.score is not None and one.trial.values.get(name) is not None]
    if not seen:
        return ""
    across = Axis([one.trial.values[name] for one in seen], 58, width - 16, spacing=spacing)
    up = value_scale(np.array([one.score for one in seen]), height - 26, 12, is_log=metric_log)
    parts = []
    for value in up.ticks(4):
        y = float(up.place(value))
        parts.append(
            f"<path class=rule d='M52 {y:.1f}H{width - 10}'/><text x=45 y={y + 3.5:.1f} class=e>{on_axis(value)}</text>"
        )
    for x, text in across.ticks(5):
        label = f"<text x={x:.1f} y={height - 7} class=m>{escape(text)}</text>"
        parts.append(f"<path class=rule d='M{x:.1f} {height - 26}v5'/>{label}")
    for one in sorted(seen, key=_drawn_late):
        x, y = across.place(one.trial.values[name]) or 0.0, float(up.place(one.score or 0.0))
        radius = 6.5 if one.is_best else 4.8
        parts.append(f"<g {one.mark}><circle class=dot cx={x:.1f} cy={y:.1f} r={radius} /></g>")
    return f"<svg class=against viewBox='0 0 {width} {height}' role=img>{''.join(parts)}</svg>"


def curves(shown: Sequence[Shown], last_step: int) -> str:
    """The metric of every trial over its steps, on one picture."""
    width, height = WIDE[0], 320
    values = np.array([value for one in shown for _, value in one.trial.reports if math.isfinite(value)])
    if not len(values):
        return ""
    across = Scale(0, max(last_step, 1), 52, width - 14)
    up = value_scale(values, height - 24, 10, is_log=wants_log(values))
    parts = [axes(across, up, width, height)]
    for one in sorted(shown, key=_drawn_late):
        points = [(step, value) for step, value in one.trial.reports if math.isfinite(value)]
        if not points:
            continue
        x = across.place(np.array([step for step, _ in points], dtype=float))
        y = up.place(np.array([value for _, value in points]))
        line = "L".join(f"{px:.1f} {py:.1f}" for px, py in zip(x.tolist(), y.tolist(), strict=True))
        marks = f"<circle class=end cx={x[-1]:.1f} cy={y[-1]:.1f} r={3.2 if one.trial.status == 'finished' else 2.6} />"
        marks += "".join(
            _diamond(float(across.place(float(step))), x, y, f"goes on from trial {donor:03d}")
            for step, donor in one.trial.took_over
        )
        parts.append(f"<g {one.mark}><path class=strand d='M{line}'/>{marks}</g>")
    return f"<svg class=curves viewBox='0 0 {width} {height}' role=img>{''.join(parts)}</svg>"


def _diamond(at: float, x: np.ndarray, y: np.ndarray, title: str) -> str:
    """A mark on the line through the points, at `at`."""
    up = float(np.interp(at, x, y)) - 4
    return f"<path class=took d='M{at:.1f} {up:.1f}l4 4l-4 4l-4 -4z'><title>{escape(title)}</title></path>"


def bars(entries: Sequence[tuple[str, float | None]]) -> str:
    """A share from 0 to 1 for each name."""
    rows = []
    for name, share in entries:
        said = "cannot be said" if share is None else f"{share:.0%}".replace("%", " %")
        width = 0.0 if share is None else 100 * share
        filled = f"<i><b style='width:{width:.1f}%'></b></i>"
        rows.append(f"<div class=bar-row><span>{escape(name)}</span>{filled}<em>{said}</em></div>")
    return f"<div class=bars>{''.join(rows)}</div>"


def slots_over_time(shown: Sequence[Shown], starts: Sequence[float], last_s: float) -> str:
    """What each slot was at, over time; the breaks between two starts of the sweep are cut out."""
    spans = [(slot, begin, end or last_s, one) for one in shown for slot, begin, end in one.trial.spans]
    if not spans:
        return ""
    cut = _without_breaks(starts, [(begin, end) for _, begin, end, _ in spans])
    length = max(cut(end) for _, _, end, _ in spans)
    slots = 1 + max(slot for slot, *_ in spans)
    width, row = WIDE[0], 22
    across = (width - 54) / max(length, 1e-9)
    parts = [f"<text x=0 y={slot * row + 15}>slot {slot}</text>" for slot in range(slots)]
    for slot, begin, end, one in spans:
        x, wide = 52 + cut(begin) * across, max((cut(end) - cut(begin)) * across - 1, 1.0)
        label = f"<text x={x + 5:.1f} y={slot * row + 15} class=in>{one.trial.name}</text>" if wide > 30 else ""
        box = f"<rect class=span x={x:.1f} y={slot * row + 2} width={wide:.1f} height={row - 4} rx=3 />"
        parts.append(f"<g {one.mark}>{box}{label}</g>")
    return f"<svg class=slots viewBox='0 0 {width} {slots * row + 4}' role=img>{''.join(parts)}</svg>"


def _without_breaks(starts: Sequence[float], spans: Sequence[tuple[float, float]]) -> Any:
    """A clock that stands still while no driver was alive."""
    pieces = []
    for place, start in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else math.inf
        inside = [until for since, until in spans if start <= since < end]
        if inside:
            pieces.append((start, max(inside)))

    def clock(time_s: float) -> float:
        return sum(min(max(time_s, begin), end) - begin for begin, end in pieces)

    return clock


def _drawn_late(one: Shown) -> tuple[bool, float]:
    """The best on top."""
    return one.is_best, -1.0 if one.goodness is None else one.goodness


def described(one: Shown, metric: str) -> dict[str, Any]:
    """A trial for whoever points at it."""
    rows = [[name, as_text(value)] for name, value in one.trial.values.items()]
    score = "–" if one.score is None else short(one.score)
    return {"name": f"trial {one.trial.name}", "status": one.trial.status, "rows": [*rows, [metric, score]]}
