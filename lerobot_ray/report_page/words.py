"""Numbers as a person reads them."""

from __future__ import annotations

import math
from datetime import datetime


def short(value: float) -> str:
    """Three to four digits that matter: 0.3142, 12.5, 25,650, 3.1e-05."""
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1000 or (size >= 100 and float(value).is_integer()):
        return f"{value:,.0f}"
    if size < 1e-3:
        return f"{value:.2e}".replace("e-0", "e-").replace(".00e", "e")
    return f"{value:.4g}"


def on_axis(value: float) -> str:
    """As few characters as an axis has room for: 20k, 1.5M, 1e-5."""
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.4g}{name}"
    if size and size < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}"


def count(number: float, noun: str, plural: str = "") -> str:
    """1 step, 12,000 steps."""
    return f"{number:,.0f} {noun if round(number) == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def size(num_bytes: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} B"


def percent(share: float) -> str:
    """Whole percents, but never a 0 % or 100 % that is not one."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.01:
        return f"{share:.1%}".replace("%", " %") if share >= 0.001 else "< 0.1 %"
    if 0.99 < share < 1:
        return f"{math.floor(share * 1000) / 10:.1f} %"
    return f"{share:.0%}".replace("%", " %")


def moment(time_s: float) -> str:
    """A time of day with its date, of this machine's zone."""
    return f"{datetime.fromtimestamp(time_s):%Y-%m-%d %H:%M}"
