"""Pictures that are one row high: how often samples were used, epochs, and the attempts over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lerobot_ray.report_page.markup import text
from lerobot_ray.report_page.words import moment, short

WIDTH = 1040
MAX_CELLS = 520
LONGEST_PAUSE = 0.15
"""Drawn at most so long, of the time the run was running."""


def heat_strip(uses: np.ndarray, starts: np.ndarray, names: Sequence[int]) -> str:
    """Uses of each sample, in storage order, stronger where more; `starts` are the first samples of episodes."""
    cells = min(MAX_CELLS, len(uses))
    edges = np.linspace(0, len(uses), cells + 1).astype(int)
    means = np.add.reduceat(uses.astype(np.float64), edges[:-1]) / np.diff(edges)
    most = max(float(means.max()), 1e-9)
    episode = np.searchsorted(starts, edges[:-1], side="right") - 1
    across = WIDTH / cells
    parts = []
    for number, mean in enumerate(means.tolist()):
        kind = "cell none" if mean == 0 else "cell"
        opacity = "" if mean == 0 else f" opacity={0.12 + 0.88 * mean / most:.2f}"
        title = f"episode {names[episode[number]]}: used {short(mean)} times"
        parts.append(
            f"<rect class='{kind}' x={number * across:.2f} y=0 width={across:.2f} height=34{opacity}>"
            f"<title>{title}</title></rect>"
        )
    if len(starts) <= 80:
        for start in starts[1:]:
            parts.append(f"<path class=seam d='M{start / len(uses) * WIDTH:.1f} 0v34'/>")
    last_label = 0.0
    for start, name in zip(starts.tolist(), names, strict=True):
        x = start / len(uses) * WIDTH
        if x - last_label >= 60 or start == 0:
            parts.append(f"<text x={x:.1f} y=48>{'episode ' if start == 0 else ''}{name}</text>")
            last_label = x + (40 if start == 0 else 0)
    return f"<svg class=strip viewBox='0 0 {WIDTH} 54' role=img>{''.join(parts)}</svg>"


def epoch_bars(shares: Sequence[float]) -> str:
    """One bar per epoch, as high as the share of samples it has used."""
    cells = min(len(shares), 260)
    edges = np.linspace(0, len(shares), cells + 1).astype(int)
    across = min(WIDTH / cells, 60.0)
    gap = min(across * 0.15, 3)
    parts = []
    for number in range(cells):
        some = shares[edges[number] : edges[number + 1]]
        share = min(some)
        first, last = edges[number], edges[number + 1] - 1
        title = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        x, height = number * across, max(1.0, 40 * share)
        parts.append(
            f"<rect class=ghost x={x:.2f} y=2 width={across - gap:.2f} height=40 />"
            f"<rect class='{'bar' if share < 1 else 'bar full'}' x={x:.2f} y={42 - height:.1f} "
            f"width={across - gap:.2f} height={height:.1f}>"
            f"<title>{title}: {100 * share:.4g} % of the samples</title></rect>"
        )
        if number == 0 or (across >= 18 and cells <= 50) or number == cells - 1:
            parts.append(f"<text x={x:.1f} y=56>{first}</text>")
    return f"<svg class=strip viewBox='0 0 {WIDTH} 60' role=img>{''.join(parts)}</svg>"


def timeline(bars: Sequence[tuple[float, float, str, str]]) -> str:
    """(from, to, kind, title) bars over wall time, in order: kinds good, warn, bad, plain. Long pauses are cut."""
    running = sum(end_s - start_s for start_s, end_s, _, _ in bars)
    gaps = [0.0, *(max(later[0] - earlier[1], 0.0) for earlier, later in pairwise(bars))]
    drawn_gaps = [min(gap, LONGEST_PAUSE * running) for gap in gaps]
    across = WIDTH / max(running + sum(drawn_gaps), 1e-9)
    parts = [f"<path class=rule d='M0 15H{WIDTH}'/>"]
    x = 0.0
    for (start_s, end_s, kind, title), gap in zip(bars, drawn_gaps, strict=True):
        x += gap * across
        width = max((end_s - start_s) * across - 1.5, 3)
        cap = min(width, 7)
        parts.append(
            f"<g><title>{text(title)}</title><rect class=attempt x={x:.1f} y=3 width={width:.1f} height=24 />"
            f"<rect class='ending {kind}' x={x + width - cap:.1f} y=3 width={cap:.1f} height=24 /></g>"
        )
        x += (end_s - start_s) * across
    begin, end = moment(bars[0][0]), moment(bars[-1][1])
    parts.append(f"<text x=0 y=44>{begin}</text><text x={WIDTH} y=44 class=e>{end}</text>")
    if max(gaps) > max(drawn_gaps):
        parts.append(f"<text x={WIDTH / 2} y=44 class=m>long pauses are drawn shorter</text>")
    return f"<svg class=strip viewBox='0 0 {WIDTH} 50' role=img>{''.join(parts)}</svg>"
