"""The sections on what came out: rollouts in the environment, and the checkpoints."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from lerobot_ray.report_page.curves import restarts
from lerobot_ray.report_page.line_chart import HALF, THIRD, Curve, Shape, line_chart
from lerobot_ray.report_page.markup import badge, figure, grid, section, table, text
from lerobot_ray.report_page.run_folder import CheckpointFolder, RunFolder
from lerobot_ray.report_page.words import count, duration, moment, short, size
from lerobot_ray.tracking.metric_log import MetricLog

MAX_VIDEOS = 4
MAX_VIDEO_BYTES = 1_500_000
MAX_EVAL_ROWS = 60
_TITLES = {
    "eval/pc_success": "Success, % of episodes",
    "eval/avg_sum_reward": "Sum of rewards, mean of episodes",
    "eval/avg_max_reward": "Highest reward, mean of episodes",
}


def evaluation(run: RunFolder) -> str:
    """Nothing for a run without an environment."""
    names = [name for name in sorted(run.log.series) if name.startswith("eval/") and "loss" not in name]
    if not names:
        if not run.config.get("env"):
            return ""
        return section("evaluation", "Evaluation", "No rollouts yet: they come every --env_eval_freq steps.")

    def charts(shape: Shape) -> list[str]:
        return [_chart(run, name, shape) for name in _TITLES if name in names]

    return section(
        "evaluation",
        "Evaluation",
        _sentence(run.log),
        grid(charts, half=HALF, third=THIRD),
        _videos(run),
        _table(run.log, names),
    )


def _chart(run: RunFolder, name: str, shape: Shape) -> str:
    picture = line_chart(
        [Curve(_TITLES[name], run.log.series[name], "c3", "points")],
        last_step=run.last_step,
        shape=shape,
        marks=restarts(run),
        from_zero=True,
        top=100.0 if name == "eval/pc_success" else None,
    )
    return figure(_TITLES[name], picture)


def checkpoints(run: RunFolder) -> str:
    if not run.checkpoints:
        why = "Saving is off." if run.config.get("save_checkpoint") is False else "None has been written yet."
        return section("checkpoints", "Checkpoints", why)
    complete = [entry for entry in run.checkpoints if entry.is_complete]
    kept = {entry.step for entry in run.checkpoints}
    removed = len({mark.step for mark in run.log.checkpoints} - kept)
    num_bytes = sum(entry.num_bytes for entry in run.checkpoints)
    lead = f"{count(len(complete), 'complete checkpoint')}, {size(num_bytes)} in all."
    if removed:
        lead += f" {count(removed, 'earlier one')} removed since."
    scores = [name for name in ("eval/loss", "eval/pc_success") if name in run.log.series]
    heads = [
        "step",
        "saved",
        "size",
        "state",
        *({"eval/loss": "held-out loss"}.get(n, "success, %") for n in scores),
        "",
    ]
    rows = [_checkpoint_row(run.log, entry, scores) for entry in run.checkpoints]
    return section("checkpoints", "Checkpoints", lead, table(heads, rows, numeric=(0, 2, *range(4, 4 + len(scores)))))


def _checkpoint_row(log: MetricLog, entry: CheckpointFolder, scores: Sequence[str]) -> list[str]:
    state = badge("complete", "good") if entry.is_complete else badge("not complete", "bad")
    values = [_value_at(log, name, entry.step) for name in scores]
    name = f"{entry.step:,}" if entry.step is not None else text(entry.name)
    note = "last" if entry.is_last else ""
    return [name, moment(entry.saved_s), size(entry.num_bytes), state, *values, note]


def _value_at(log: MetricLog, name: str, step: int | None) -> str:
    series = log.series[name]
    place = np.flatnonzero(series.step == step)
    return short(float(series.value[place[0]])) if len(place) else "–"


def _sentence(log: MetricLog) -> str:
    success = log.series["eval/pc_success"].finite if "eval/pc_success" in log.series else None
    if success is None or not len(success.value):
        return ""
    best = int(success.value.argmax())
    said = f"Best success: {success.value[best]:.3g} % at step {success.step[best]:,}"
    if best != len(success.value) - 1:
        said += f"; the last evaluation had {success.value[-1]:.3g} %"
    return f"{said}."


def _table(log: MetricLog, names: list[str]) -> str:
    steps = sorted({step for name in names for step in log.series[name].step.tolist()})
    shown = steps[-MAX_EVAL_ROWS:]
    rows = [[f"{step:,}", *(_cell(log, name, step) for name in names)] for step in shown]
    heads = ["step", *(text(name.removeprefix("eval/").replace("pc_success", "success, %")) for name in names)]
    return table(heads, rows, numeric=range(len(heads)))


def _cell(log: MetricLog, name: str, step: int) -> str:
    value = _value_at(log, name, step)
    place = np.flatnonzero(log.series[name].step == step)
    return duration(float(log.series[name].value[place[0]])) if name.endswith("_s") and len(place) else value


def _videos(run: RunFolder) -> str:
    """The newest evaluation's first videos: inside the page while they are small, else as links."""
    if not run.videos:
        return ""
    shown = "".join(video(run.folder, path) for path in run.videos[:MAX_VIDEOS])
    step = next((part.rpartition("_")[2] for part in run.videos[0].parts if part.startswith("videos_step_")), "")
    caption = f"Episodes at step {int(step):,}" if step.isdigit() else "Episodes"
    return figure(caption, f"<div class=videos>{shown}</div>", wide=True)


def video(folder: Path, path: Path) -> str:
    """A video inside the page while it is small, else a link."""
    where = path.relative_to(folder).as_posix()
    if path.stat().st_size > MAX_VIDEO_BYTES:
        return f"<a href='{quote(where)}'>{text(where)} ({size(path.stat().st_size)})</a>"
    content = base64.b64encode(path.read_bytes()).decode()
    return (
        f"<video controls autoplay muted loop playsinline preload=metadata title='{text(where)}' "
        f"src='data:video/mp4;base64,{content}'></video>"
    )
