"""Shares of a whole: stacked over steps, and as one bar for the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lerobot_ray.report_page.line_chart import axes, path
from lerobot_ray.report_page.markup import text
from lerobot_ray.report_page.scale import Scale, value_scale
from lerobot_ray.report_page.words import duration, percent

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24


@dataclass(frozen=True, eq=False)
class Layer:
    """One part of the whole: seconds of a step, at each of the chart's steps."""

    name: str
    colour: str
    value: np.ndarray


def stack_chart(
    step: np.ndarray, layers: Sequence[Layer], *, last_step: int, shape: tuple[int, int], max_points: int = 240
) -> str:
    """Layers on top of one another, averaged in bins where there are more steps than the picture can show."""
    width, height = shape
    bins = np.minimum(np.arange(len(step)) * max_points // max(len(step), 1), max_points - 1)
    bins = np.arange(len(step)) if len(step) <= max_points else bins
    first = np.flatnonzero(np.diff(bins, prepend=-1))
    counts = np.diff(np.append(first, len(step)))
    at = step[np.append(first[1:], len(step)) - 1]
    means = [np.add.reduceat(layer.value, first) / counts for layer in layers]
    tops = np.cumsum(means, axis=0)
    across = Scale(0, max(last_step, 1), _LEFT, width - _RIGHT)
    up = value_scale(tops[-1], height - _BOTTOM, _TOP, is_log=False, from_zero=True)
    drawn, below = [], np.zeros(len(at))
    x = across.place(np.concatenate([at, at[::-1]]))
    for layer, upper in zip(layers, tops, strict=True):
        y = up.place(np.concatenate([upper, below[::-1]]))
        drawn.append(f"<path class='area {layer.colour}' d='{path(x, y)}Z'/>")
        below = upper
    curves = [
        {"name": layer.name, "colour": layer.colour, "x": at.tolist(), "y": [float(f"{v:.4g}") for v in mean]}
        for layer, mean in zip(layers, means, strict=True)
    ]
    data = {
        "plot": [_LEFT, _TOP, width - _RIGHT, height - _BOTTOM],
        "last": across.high,
        "unit": " s",
        "curves": curves[::-1],
    }
    return (
        f"<svg class=chart viewBox='0 0 {width} {height}' role=img data-chart='{escape(json.dumps(data))}'>"
        f"{''.join(drawn)}{axes(across, up, width, height)}<g class=cursor></g></svg>"
    )


def share_bar(parts: Sequence[tuple[str, str, float]]) -> str:
    """One bar of (name, colour, seconds), with each part's share and time below."""
    total = sum(seconds for _, _, seconds in parts) or 1.0
    bar = "".join(
        f"<i class='{colour}' style='flex:{seconds / total:.5f}' title='{text(name)}: {percent(seconds / total)}'></i>"
        for name, colour, seconds in parts
        if seconds > 0
    )
    labels = "".join(
        f"<li><i class='{colour}'></i><b>{percent(seconds / total)}</b> {text(name)}"
        f"<span>{duration(seconds)}</span></li>"
        for name, colour, seconds in parts
        if seconds > 0
    )
    return f"<div class=sharebar>{bar}</div><ul class=shares>{labels}</ul>"
