"""A loss curve as a PNG, for the page of a policy. Drawn with Pillow, which datasets need anyway."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np

SIZE = (960, 360)
_SCALE = 2
"""Drawn larger and shrunk, for smooth lines."""
_MARGIN = (64, 18, 20, 36)
_COLOURS = ("#2a6fdb", "#d9822b", "#3d9970", "#8e44ad")
_INK, _RULE, _GROUND = "#333333", "#e3e3e3", "#ffffff"


def picture_of(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes | None:
    """PNG of name -> (steps, values); None when no curve has two finite points."""
    from PIL import Image, ImageDraw

    finite = {name: _finite(steps, values) for name, (steps, values) in curves.items()}
    drawn = {name: curve for name, curve in finite.items() if len(curve[0]) > 1}
    if not drawn:
        return None
    width, height = (side * _SCALE for side in SIZE)
    image = Image.new("RGB", (width, height), _GROUND)
    pen = ImageDraw.Draw(image)
    values = np.concatenate([curve[1] for curve in drawn.values()])
    is_log = bool(values.min() > 0 and values.max() / values.min() > 20)
    last = max(float(curve[0][-1]) for curve in drawn.values())
    first = min(float(curve[0][0]) for curve in drawn.values())
    low, high = _range(values, is_log)
    left, top, right, bottom = (side * _SCALE for side in _MARGIN)

    def place(steps: np.ndarray, heights: np.ndarray) -> list[tuple[float, float]]:
        x = left + (steps - first) / max(last - first, 1) * (width - left - right)
        y = height - bottom - (heights - low) / (high - low) * (height - top - bottom)
        return list(zip(x.tolist(), y.tolist(), strict=True))

    font = _font()
    for mark in _marks(low, high):
        ((_, y),) = place(np.array([first]), np.array([mark]))
        pen.line([(left, y), (width - right, y)], fill=_RULE, width=_SCALE)
        pen.text((left - 8 * _SCALE, y), f"{10**mark if is_log else mark:.3g}", fill=_INK, font=font, anchor="rm")
    for mark in _marks(first, last):
        ((x, _),) = place(np.array([mark]), np.array([low]))
        pen.text((x, height - bottom + 12 * _SCALE), f"{mark:,.0f}", fill=_INK, font=font, anchor="mm")
    for (name, (steps, heights)), colour in zip(drawn.items(), _COLOURS, strict=False):
        pen.line(place(steps, np.log10(heights) if is_log else heights), fill=colour, width=2 * _SCALE, joint="curve")
        number = list(drawn).index(name)
        at = (width - right - 8 * _SCALE, top + (10 + 18 * number) * _SCALE)
        pen.text(at, name, fill=colour, font=font, anchor="rm")
    sink = io.BytesIO()
    image.resize(SIZE, Image.Resampling.LANCZOS).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def _finite(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = np.isfinite(values)
    return np.asarray(steps, dtype=float)[keep], np.asarray(values, dtype=float)[keep]


def _range(values: np.ndarray, is_log: bool) -> tuple[float, float]:
    heights = np.log10(values) if is_log else values
    low, high = float(heights.min()), float(heights.max())
    air = 0.05 * (high - low) or max(abs(high) * 0.1, 1e-9)
    return low - air, high + air


def _marks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between, about so many."""
    rough = max(high - low, 1e-12) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _font():
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size=12 * _SCALE)
    except (TypeError, OSError):  # a Pillow before 10.1, or one without FreeType
        return None
