"""A preview as one picture, for chats and READMEs: the sheets and curves of the page, drawn with matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.types import ACTION, OBS_STATE
from lerobot_ray.data.preview import FRAMES_PER_EPISODE, EpisodeView, Panel, Preview
from lerobot_ray.data.preview_page import duration_text, number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN, MARGIN_IN, GAP_IN = 12.0, 0.4, 0.08
PLOTS_PER_ROW, PLOT_HEIGHT_IN = 4, 0.85
DPI = 110
INK, SOFT, LINE = "#1c2430", "#667085", "#d0d5dd"
COLOURS = {OBS_STATE: "#2563eb", ACTION: "#e8710a"}
OTHER = "#0f9d76"


def sheet(preview: Preview) -> bytes:
    """The picture as PNG."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "a PNG preview is drawn with matplotlib: pip install matplotlib, or ask for a .html."
        ) from error
    heights = [_episode_height(preview, view) for view in preview.episodes]
    figure = Figure(figsize=(WIDTH_IN, 1.15 + sum(heights)), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    pen = _Pen(figure)
    pen.text(preview.repo_id, size=17, weight="bold")
    pen.down(0.32)
    lengths = preview.lengths
    about = [
        preview.robot_type or "",
        f"{len(lengths):,} episodes",
        f"{preview.num_frames:,} frames at {preview.fps:g} per second",
        duration_text(preview.duration_s),
        f"{len(preview.task_counts)} task{'s' if len(preview.task_counts) != 1 else ''}",
    ]
    pen.text("  ·  ".join(part for part in about if part), size=10, color=SOFT)
    pen.down(0.45)
    for view in preview.episodes:
        _draw_episode(pen, preview, view)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


class _Pen:
    """Places things from the top down, in inches."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()
        self.y = self.height - MARGIN_IN

    def down(self, inches: float) -> None:
        self.y -= inches

    def text(self, words: str, *, x: float = MARGIN_IN, size: float, color: str = INK, **more: Any) -> None:
        self.figure.text(x / self.width, self.y / self.height, words, fontsize=size, color=color, va="top", **more)

    def axes(self, x: float, width: float, height: float) -> Any:
        box = (x / self.width, (self.y - height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)


def _tile_in() -> float:
    return (WIDTH_IN - 2 * MARGIN_IN - (FRAMES_PER_EPISODE - 1) * GAP_IN) / FRAMES_PER_EPISODE


def _strip_height(pictures: list[np.ndarray]) -> float:
    height, width = pictures[0].shape[:2]
    return _tile_in() * height / width


def _episode_height(preview: Preview, view: EpisodeView) -> float:
    strips = sum(_strip_height(pictures) + 0.44 for pictures in view.sheets.values() if pictures)
    return 0.52 + strips + -(-len(view.panels) // PLOTS_PER_ROW) * (PLOT_HEIGHT_IN + 0.42) + 0.3


def _draw_episode(pen: _Pen, preview: Preview, view: EpisodeView) -> None:
    pen.text(f"Episode {view.number}", size=12, weight="bold")
    about = f"{', '.join(view.tasks)}   {view.length} frames · {duration_text(view.duration_s)}"
    pen.text(about, x=MARGIN_IN + 1.15, size=10, color=SOFT)
    pen.down(0.36)
    for camera, pictures in view.sheets.items():
        if not pictures:
            continue
        pen.text(camera, size=8.5, color=SOFT)
        pen.down(0.19)
        height = _strip_height(pictures)
        for place, (picture, frame) in enumerate(zip(pictures, view.frame_numbers, strict=True)):
            axes = pen.axes(MARGIN_IN + place * (_tile_in() + GAP_IN), _tile_in(), height)
            axes.imshow(picture, aspect="auto", interpolation="antialiased")
            axes.set_axis_off()
            caption = f"{frame / preview.fps:.1f} s"
            axes.text(0, -0.03, caption, fontsize=6.5, color=SOFT, va="top", transform=axes.transAxes)
        pen.down(height + 0.25)
    if any(len(panel.curves) > 1 for panel in view.panels):
        for place, feature in enumerate((OBS_STATE, ACTION)):
            pen.text("━", x=MARGIN_IN + 1.5 * place, size=9, color=COLOURS[feature])
            pen.text(feature, x=MARGIN_IN + 1.5 * place + 0.18, size=8, color=SOFT)
        pen.down(0.16)
    width = (WIDTH_IN - 2 * MARGIN_IN - (PLOTS_PER_ROW - 1) * 0.3) / PLOTS_PER_ROW
    for start in range(0, len(view.panels), PLOTS_PER_ROW):
        pen.down(0.18)
        for place, panel in enumerate(view.panels[start : start + PLOTS_PER_ROW]):
            _draw_panel(pen.axes(MARGIN_IN + place * (width + 0.3), width, PLOT_HEIGHT_IN), panel, view.duration_s)
        pen.down(PLOT_HEIGHT_IN + 0.24)
    pen.down(0.3)


def _draw_panel(axes: Any, panel: Panel, duration_s: float) -> None:
    for curve in reversed(panel.curves):
        at_s = np.linspace(0, duration_s, len(curve.values))
        axes.plot(at_s, curve.values, lw=1.3, color=COLOURS.get(curve.feature, OTHER), label=curve.feature)
    values = np.concatenate([curve.values for curve in panel.curves])
    finite = values[np.isfinite(values)]
    span = f"{number_text(finite.min())} … {number_text(finite.max())}" if len(finite) else ""
    axes.set_title(panel.title, fontsize=8, color=INK, loc="left", pad=3)
    axes.set_title(span, fontsize=7, color=SOFT, loc="right", pad=3)
    axes.set_xlim(0, max(duration_s, 1e-9))
    axes.margins(y=0.1)
    axes.set_xticks([0, duration_s], ["0", f"{duration_s:.1f} s"])
    axes.set_yticks([])
    axes.tick_params(labelsize=6.5, colors=SOFT, length=0)
    for spine in axes.spines.values():
        spine.set_color(LINE)
