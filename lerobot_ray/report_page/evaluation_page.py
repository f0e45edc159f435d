"""The page of an evaluation on its own: one HTML file that needs no other, from what `eval_info.json` holds."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray import __version__
from lerobot_ray.report_page.line_chart import HALF, WIDE, Curve, Shape, line_chart
from lerobot_ray.report_page.markup import badge, figure, folded, grid, section, table, text
from lerobot_ray.report_page.results import video
from lerobot_ray.report_page.words import count, duration, moment, short
from lerobot_ray.tracking.metric_log import Series

MAX_VIDEOS = 24
"""In the page; the others are in their folders."""


def write_evaluation_page(infos: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The page of one or several policies in one environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(evaluation_html(infos, path.parent), encoding="utf-8")
    os.replace(beside, path)
    return path


def evaluation_html(infos: Sequence[Mapping[str, Any]], folder: Path) -> str:
    style, script = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = "".join(
        (_header(infos), _over_steps(infos), _policies(infos), _tasks(infos), _videos(infos, folder), _episodes(infos))
    )
    title = text(infos[-1]["evaluation"].get("env", "environment"))
    foot = f"Written {moment(time.time())} by lerobot_ray {text(__version__)} in {text(folder)}"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{title} · evaluation</title><style>{style}</style></head>"
        f"<body><main>{body}<footer>{foot}</footer></main><script>{script}</script></body></html>"
    )


def success(numbers: Mapping[str, Any]) -> str:
    """`46.7 % (30.2 to 63.9)`; a dash where the environment does not say."""
    if numbers["pc_success"] is None:
        return "–"
    low, high = numbers["pc_success_interval"]
    return f"{numbers['pc_success']:.1f} % ({low:.1f} to {high:.1f})"


def _header(infos: Sequence[Mapping[str, Any]]) -> str:
    best = max(infos, key=lambda info: info["overall"]["pc_success"] or 0.0)
    overall, about = best["overall"], best["evaluation"]
    failed = sum(info["overall"]["n_failed"] for info in infos)
    tiles = [
        ("Success", _percent(overall["pc_success"]), _interval(overall)),
        ("Sum of rewards", _number(overall["avg_sum_reward"]), "mean of episodes"),
        ("Length", _number(overall["avg_length"]), "steps, mean of episodes"),
        (
            "Episodes",
            str(overall["n_episodes"]),
            f"{count(failed, 'failed one')}" if failed else "all played to their end",
        ),
        ("Time", duration(sum(info["overall"]["eval_s"] for info in infos)), count(about.get("actors", 1), "actor")),
    ]
    html = "".join(
        f"<div class=tile><b>{text(value)}</b><span>{text(name)}</span><em>{text(extra)}</em></div>"
        for name, value, extra in tiles
    )
    which = (
        f"{about['name']}, the best of {len(infos)} policies" if len(infos) > 1 else about.get("policy", about["name"])
    )
    mark = badge(f"{failed} not played", "bad") if failed else badge("complete", "good")
    return (
        f"<header><div class=title><h1>{text(about.get('env', ''))}</h1>{mark}</div>"
        f"<p class=about>{text(which)}</p><p class=lead>Seeds {about.get('seed', 0)} and up, one per episode; "
        "intervals are 95 % (Wilson).</p></header>"
        f"<div class=tiles>{html}</div>"
    )


def _over_steps(infos: Sequence[Mapping[str, Any]]) -> str:
    """Success over training steps, for several checkpoints of a run."""
    of_runs = sorted(
        (i for i in infos if i["evaluation"].get("step") is not None), key=lambda i: i["evaluation"]["step"]
    )
    steps = [info["evaluation"]["step"] for info in of_runs]
    if len(set(steps)) < 2 or len(set(steps)) < len(steps):
        return ""
    last = max(steps)

    def curve(name: str, caption: str, colour: str) -> list[Curve]:
        known = [info for info in of_runs if info["overall"][name] is not None]
        if not known:
            return []
        band = None
        if name == "pc_success":
            bounds = np.array([info["overall"]["pc_success_interval"] for info in known])
            band = (bounds[:, 0], bounds[:, 1])
        places = np.array([info["evaluation"]["step"] for info in known])
        values = np.array([float(info["overall"][name]) for info in known])
        return [
            Curve(caption, Series(places, values, np.zeros(len(known)), np.ones(len(known))), colour, "points", band)
        ]

    rate = curve("pc_success", "success", "c3")
    picture = line_chart(rate, last_step=last, shape=WIDE, from_zero=True, top=100.0, unit="%") if rate else ""

    def returns(shape: Shape) -> list[str]:
        shown = []
        for name, caption in (
            ("avg_sum_reward", "Sum of rewards, mean of episodes"),
            ("avg_length", "Steps per episode"),
        ):
            curves = curve(name, caption, "c1")
            shown.append(figure(caption, line_chart(curves, last_step=last, shape=shape)) if curves else "")
        return shown

    return section(
        "steps",
        "Over training",
        "",
        figure("Success, % of episodes", picture, note="band: 95 % interval", wide=True) if picture else "",
        grid(returns, half=HALF, third=HALF),
    )


def _policies(infos: Sequence[Mapping[str, Any]]) -> str:
    heads = ["policy", "success, 95 % interval", "sum of rewards", "highest reward", "steps", "episodes", "time"]
    rows = [
        [text(info["evaluation"]["name"]), *_cells(info["overall"]), duration(info["overall"]["eval_s"])]
        for info in infos
    ]
    return section("results", "Results", "", table(heads, rows, numeric=range(2, 7)))


def _tasks(infos: Sequence[Mapping[str, Any]]) -> str:
    """Nothing where there is one task only."""
    if all(len(info["per_task"]) < 2 for info in infos):
        return ""
    heads = ["policy", "task", "success, 95 % interval", "sum of rewards", "highest reward", "steps", "episodes"]
    rows = [
        [text(info["evaluation"]["name"]), text(task["task"]), *_cells(task)]
        for info in infos
        for task in info["per_task"]
    ]
    return section("tasks", "By task", "", table(heads, rows, numeric=range(3, 7)))


def _videos(infos: Sequence[Mapping[str, Any]], folder: Path) -> str:
    figures, shown = [], 0
    for info in reversed(infos):  # the last checkpoint first
        videos = [Path(episode["video"]) for episode in info["episodes"] if episode["video"]]
        videos = [path for path in videos if path.is_file()][: max(0, MAX_VIDEOS - shown)]
        shown += len(videos)
        if videos:
            inside = "".join(video(folder, path) for path in videos)
            figures.append(figure(info["evaluation"]["name"], f"<div class=videos>{inside}</div>", wide=True))
    return (
        section("videos", "Episodes", "The first of each policy, as its camera saw them.", *figures) if figures else ""
    )


def _episodes(infos: Sequence[Mapping[str, Any]]) -> str:
    heads = ["episode", "seed", "task", "success", "sum of rewards", "highest reward", "steps", ""]
    parts = []
    for info in infos:
        rows = [
            [
                str(episode["episode"]),
                str(episode["seed"]),
                text(episode["task"]),
                {True: "yes", False: "no", None: "–"}[episode["success"]],
                short(episode["sum_reward"]),
                short(episode["max_reward"]),
                str(episode["length"]),
                text(episode["error"] or ""),
            ]
            for episode in info["episodes"]
        ]
        parts.append(
            folded(f"{info['evaluation']['name']}: every episode", table(heads, rows, numeric=(0, 1, 4, 5, 6)))
        )
    return section("episodes", "Every episode", "", *parts)


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    failed = f" + {numbers['n_failed']} failed" if numbers["n_failed"] else ""
    values = (numbers["avg_sum_reward"], numbers["avg_max_reward"], numbers["avg_length"])
    return [success(numbers), *(_number(value) for value in values), f"{numbers['n_episodes']}{failed}"]


def _number(value: float | None) -> str:
    return "–" if value is None else short(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def _interval(numbers: Mapping[str, Any]) -> str:
    if numbers["pc_success_interval"] is None:
        return "the environment does not say"
    low, high = numbers["pc_success_interval"]
    return f"{low:.1f} to {high:.1f} % with 95 % confidence"
