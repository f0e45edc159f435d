"""A preview as one web page: pictures and curves inside, no scripts, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from lerobot_ray.core.types import ACTION, INDEX_FEATURES, OBS_STATE
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.preview import FRAMES_PER_EPISODE, Curve, EpisodeView, Panel, Preview, component_names

TILE_HEIGHT_PX = 150
TASKS_SHOWN = 8
PLOT_W, PLOT_H = 260, 84

STYLE = """
:root { --ink: #1c2430; --soft: #667085; --line: #e4e7ec; --card: #ffffff; --page: #f6f7f9;
        --state: #2563eb; --action: #e8710a; --other: #0f9d76; --bar: #b9c9ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaf0; --soft: #98a2b3; --line: #2b3442; --card: #171d27; --page: #0f141c;
          --state: #7aa5ff; --action: #ffa04d; --other: #4fd1a5; --bar: #33476e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 17px; margin: 0; }
h3 { font-size: 12px; font-weight: 600; color: var(--soft); margin: 0 0 8px; text-transform: uppercase;
     letter-spacing: 0.05em; }
h3.camera { text-transform: none; letter-spacing: 0; font-size: 12.5px; margin-bottom: 6px; }
.sub { color: var(--soft); margin: 4px 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile { padding: 14px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); }
.card { padding: 18px 20px; margin-bottom: 16px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.two .card { margin-bottom: 0; }
.two { margin-bottom: 16px; }
.two.flat { margin-bottom: 0; gap: 32px; align-items: start; }
@media (max-width: 800px) { .two { grid-template-columns: 1fr; } }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 500; }
td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 12.5px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
.soft { color: var(--soft); }
.head { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; margin-bottom: 14px; }
.strip { display: grid; gap: 6px; margin-bottom: 14px; }
.strip figure { margin: 0; min-width: 0; }
.strip img { display: block; width: 100%; border-radius: 6px; background: var(--line); }
.strip figcaption { color: var(--soft); font-size: 11px; margin-top: 2px; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 12px 18px; }
.plot { min-width: 0; }
.plot .name { display: flex; justify-content: space-between; font-size: 12px; gap: 8px; }
.plot .name span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 10px; font-family: inherit; }
.key { display: inline-flex; align-items: center; gap: 6px; color: var(--soft); font-size: 12px; }
.key i { width: 18px; height: 3px; border-radius: 2px; display: inline-block; }
.bars { display: grid; grid-template-columns: minmax(0, max-content) 1fr max-content; gap: 6px 12px;
        align-items: center; }
.bars .label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 340px; }
.bars .bar { background: var(--bar); height: 12px; border-radius: 3px; }
"""


def page(preview: Preview) -> str:
    """The whole document."""
    title = escape(preview.repo_id)
    about = [preview.robot_type or "", f"{preview.fps:g} frames per second", "LeRobot dataset v3.0"]
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{STYLE}</style></head><body><main>",
        f"<h1>{title}</h1><p class='sub'>{escape(' · '.join(part for part in about if part))}</p>",
        _tiles(preview),
        f"<div class='two'>{_lengths(preview)}{_tasks(preview)}</div>",
        _features(preview),
        _ranges(preview),
        *(_episode(view) for view in preview.episodes),
        "</main></body></html>",
    ]
    return "".join(parts)


def duration_text(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def number_text(value: float) -> str:
    """A number in a label: three digits, a real minus sign, and no 1e-17 for zero."""
    return ("0" if abs(value) < 1e-6 else f"{value:.3g}").replace("-", "−")


def _tiles(preview: Preview) -> str:
    lengths = preview.lengths
    cameras = [spec for spec in preview.features.values() if spec.is_camera]
    tiles = [
        (f"{len(lengths):,}", "episodes"),
        (f"{preview.num_frames:,}", "frames"),
        (duration_text(preview.duration_s), "recorded"),
        (f"{len(preview.task_counts)}", "tasks" if len(preview.task_counts) != 1 else "task"),
        (f"{len(cameras)}", "cameras" if len(cameras) != 1 else "camera"),
        (duration_text(float(np.median(lengths)) / preview.fps) if len(lengths) else "–", "median episode"),
    ]
    return (
        "<div class='tiles'>"
        + "".join(f"<div class='tile'><b>{n}</b><span>{t}</span></div>" for n, t in tiles)
        + "</div>"
    )


def _lengths(preview: Preview) -> str:
    lengths = preview.lengths
    if not len(lengths):
        return ""
    bins = min(24, max(1, len(np.unique(lengths))))
    counts, edges = np.histogram(lengths, bins=bins)
    width, height, top = 520, 120, max(1, counts.max())
    step = width / len(counts)
    bars = "".join(
        f"<rect x='{k * step + 1:.1f}' y='{height - height * n / top:.1f}' width='{step - 2:.1f}' "
        f"height='{height * n / top:.1f}' rx='2' fill='var(--state)' opacity='0.75'><title>{n} episodes of "
        f"{edges[k]:.0f} to {edges[k + 1]:.0f} frames</title></rect>"
        for k, n in enumerate(counts)
    )
    ends = (
        f"<text x='0' y='{height + 14}'>{edges[0]:.0f} frames</text>"
        f"<text x='{width}' y='{height + 14}' text-anchor='end'>{edges[-1]:.0f} frames</text>"
    )
    return (
        f"<div class='card'><h3>Episode lengths</h3><svg viewBox='0 -2 {width} {height + 20}'>{bars}"
        f"<line x1='0' x2='{width}' y1='{height}' y2='{height}' stroke='var(--line)'/>{ends}</svg></div>"
    )


def _tasks(preview: Preview) -> str:
    top = max((n for _, n in preview.task_counts), default=1)
    rows = "".join(
        f"<div class='label' title='{escape(task, quote=True)}'>{escape(task) or '<i>no task</i>'}</div>"
        f"<div><div class='bar' style='width:{100 * n / top:.1f}%'></div></div><div class='num'>{n}</div>"
        for task, n in preview.task_counts[:TASKS_SHOWN]
    )
    more = len(preview.task_counts) - TASKS_SHOWN
    rest = f"<p class='soft'>and {more} more</p>" if more > 0 else ""
    return f"<div class='card'><h3>Tasks, in episodes</h3><div class='bars'>{rows}</div>{rest}</div>"


def _features(preview: Preview) -> str:
    rows = []
    for name, spec in preview.features.items():
        if name in INDEX_FEATURES:
            continue
        rows.append(
            f"<tr><td><code>{escape(name)}</code></td><td class='num'>{escape(feature_kind(spec))}</td>"
            f"<td class='num'>{' × '.join(map(str, spec.shape))}</td><td class='soft'>{escape(_names(spec))}</td></tr>"
        )
    head = "<tr><th>feature</th><th>kind</th><th>shape</th><th>components</th></tr>"
    return f"<div class='card'><h3>Features</h3><table>{head}{''.join(rows)}</table></div>"


def feature_kind(spec: FeatureSpec) -> str:
    """What a feature is, in a word or two: "video av1", "depth image", "float32"."""
    if spec.is_camera:
        codec = str(spec.info.get("video.codec", "")) if spec.is_video else ""
        return " ".join(part for part in ("depth" if spec.is_depth else "", spec.dtype, codec) if part)
    return spec.dtype


def _names(spec: FeatureSpec) -> str:
    return "" if spec.is_camera or spec.names is None else ", ".join(component_names(spec))


def _ranges(preview: Preview) -> str:
    """Where the values of state and action lie, over the whole dataset, side by side."""
    tables = []
    for feature, colour in ((OBS_STATE, "var(--state)"), (ACTION, "var(--action)")):
        entry = (preview.stats or {}).get(feature)
        if entry is None or feature not in preview.features or not {"min", "max", "q01", "q50", "q99"} <= set(entry):
            continue
        rows = []
        for place, name in enumerate(component_names(preview.features[feature])):
            low, q01, q50, q99, high = (float(np.ravel(entry[s])[place]) for s in ("min", "q01", "q50", "q99", "max"))
            rows.append(
                f"<tr><td>{escape(name)}</td><td class='num'>{number_text(low)}</td>"
                f"<td style='width:50%;vertical-align:middle'>{_range(low, q01, q50, q99, high, colour)}</td>"
                f"<td class='num'>{number_text(high)}</td></tr>"
            )
        head = f"<tr><th><code>{escape(feature)}</code></th><th>min</th><th></th><th>max</th></tr>"
        tables.append(f"<table>{head}{''.join(rows)}</table>")
    if not tables:
        return ""
    about = "Ranges: 1 % to 99 % of all frames (thick), median (dot)"
    return f"<div class='card'><h3>{about}</h3><div class='two flat'>{''.join(tables)}</div></div>"


def _range(low: float, q01: float, q50: float, q99: float, high: float, colour: str) -> str:
    width = max(high - low, 1e-12)
    a, m, b = (5 + 210 * (value - low) / width for value in (q01, q50, q99))
    return (
        f"<svg viewBox='0 0 220 14'><line x1='5' x2='215' y1='7' y2='7' stroke='{colour}' opacity='0.35'/>"
        f"<line x1='{a:.1f}' x2='{b:.1f}' y1='7' y2='7' stroke='{colour}' stroke-width='5' stroke-linecap='round'/>"
        f"<circle cx='{m:.1f}' cy='7' r='4.5' fill='var(--card)' stroke='{colour}' stroke-width='2'/></svg>"
    )


def _episode(view: EpisodeView) -> str:
    seconds = [number * view.duration_s / view.length for number in view.frame_numbers]
    sheets = "".join(_strip(camera, pictures, seconds) for camera, pictures in view.sheets.items())
    both = any(len(panel.curves) > 1 for panel in view.panels)
    key = (
        "<div class='head'><span class='key'><i style='background:var(--state)'></i>observation.state</span>"
        "<span class='key'><i style='background:var(--action)'></i>action</span></div>"
        if both
        else ""
    )
    plots = "".join(_plot(panel, view.duration_s) for panel in view.panels)
    return (
        f"<div class='card'><div class='head'><h2>Episode {view.number}</h2>"
        f"<span>{escape(', '.join(view.tasks))}</span>"
        f"<span class='soft'>{view.length} frames · {duration_text(view.duration_s)}</span></div>"
        f"{sheets}{key}<div class='plots'>{plots}</div></div>"
    )


def _strip(camera: str, pictures: Sequence[np.ndarray], seconds: Sequence[float]) -> str:
    # A short episode leaves room, so that tiles are equally large down the page.
    columns = max(FRAMES_PER_EPISODE, len(pictures))
    tiles = "".join(
        f"<figure><img alt='' src='{_data_uri(picture)}'><figcaption>{at:.1f} s</figcaption></figure>"
        for picture, at in zip(pictures, seconds, strict=True)
    )
    return (
        f"<h3 class='camera'>{escape(camera)}</h3>"
        f"<div class='strip' style='grid-template-columns:repeat({columns},minmax(0,1fr))'>{tiles}</div>"
    )


def _data_uri(picture: np.ndarray) -> str:
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.height > TILE_HEIGHT_PX:
        size = (max(1, round(image.width * TILE_HEIGHT_PX / image.height)), TILE_HEIGHT_PX)
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=86)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plot(panel: Panel, duration_s: float) -> str:
    values = np.concatenate([curve.values for curve in panel.curves])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    pad = 0.1 * (high - low) or max(abs(high), 1.0) * 0.5
    lines = "".join(_line(curve, low - pad, high + pad) for curve in reversed(panel.curves))
    return (
        f"<div class='plot'><div class='name'><span>{escape(panel.title)}</span>"
        f"<span class='soft num'>{number_text(low)} … {number_text(high)}</span></div>"
        f"<svg viewBox='0 0 {PLOT_W} {PLOT_H + 12}'><rect width='{PLOT_W}' height='{PLOT_H}' fill='none' "
        f"stroke='var(--line)' rx='4'/>{lines}<text x='0' y='{PLOT_H + 11}'>0</text>"
        f"<text x='{PLOT_W}' y='{PLOT_H + 11}' text-anchor='end'>{duration_s:.1f} s</text></svg></div>"
    )


def _line(curve: Curve, low: float, high: float) -> str:
    colour = {OBS_STATE: "var(--state)", ACTION: "var(--action)"}.get(curve.feature, "var(--other)")
    values = curve.values
    if len(values) > 2 * PLOT_W:  # more points than pixels: keep each pixel's extremes
        values = _extremes(values, PLOT_W)
    x = np.linspace(0, PLOT_W, len(values)) if len(values) > 1 else np.zeros(1)
    y = PLOT_H - PLOT_H * (values - low) / (high - low)
    pieces, pen = [], "M"
    for at_x, at_y in zip(x, y, strict=True):
        if not np.isfinite(at_y):
            pen = "M"
            continue
        pieces.append(f"{pen}{at_x:.1f} {at_y:.1f}")
        pen = "L"
    return (
        f"<path d='{''.join(pieces)}' fill='none' stroke='{colour}' stroke-width='1.6' stroke-linejoin='round' "
        f"stroke-linecap='round'><title>{escape(curve.feature)} {escape(curve.name)}</title></path>"
    )


def _extremes(values: np.ndarray, pixels: int) -> np.ndarray:
    parts = np.array_split(values, pixels)
    return np.concatenate([[part.min(), part.max()] for part in parts])
