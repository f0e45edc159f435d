"""`sweep.html`: a sweep as one page that needs no other and no network."""

from __future__ import annotations

import json
import math
import os
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

from lerobot_ray import __version__
from lerobot_ray.report_page.line_chart import HALF, THIRD
from lerobot_ray.report_page.markup import badge, figure, folded, grid, pairs, section, table, text
from lerobot_ray.report_page.scale import wants_log
from lerobot_ray.report_page.words import count, duration, moment, percent, short
from lerobot_ray.sweeps import charts
from lerobot_ray.sweeps.best import BEST_FILE, commands
from lerobot_ray.sweeps.charts import Shown, Spacing
from lerobot_ray.sweeps.flags import as_text
from lerobot_ray.sweeps.importance import importance, is_number
from lerobot_ray.sweeps.plan import TRIALS_DIR, SweepPlan
from lerobot_ray.sweeps.trial import SweepState, best_trial, ranked, set_score
from lerobot_ray.sweeps.use import use_of

PAGE_FILE = "sweep.html"
_KINDS = {"finished": "good", "stopped": "warn", "failed": "bad"}
MOST_CHARTS = 12


def write_page(plan: SweepPlan, state: SweepState) -> Path:
    """Write the page of a sweep, ended or not; its path."""
    path = plan.folder / PAGE_FILE
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(page_html(plan, state), encoding="utf-8")
    os.replace(beside, path)
    return path


def page_html(plan: SweepPlan, state: SweepState) -> str:
    shown = _shown(state)
    report, own = files("lerobot_ray.report_page"), files(__package__)
    style = report.joinpath("page.css").read_text(encoding="utf-8") + own.joinpath("sweep.css").read_text(
        encoding="utf-8"
    )
    script = own.joinpath("sweep.js").read_text(encoding="utf-8")
    body = "".join(
        (
            _header(plan, state),
            _parallel(plan, shown),
            _against(plan, shown),
            _curves(plan, state, shown),
            _importance(plan, shown),
            _trials(plan, state),
            _slots(state, shown),
            _settings(plan, state),
        )
    )
    data = {one.trial.number: charts.described(one, plan.sweep.metric) for one in shown}
    foot = f"Written {moment(time.time())} by lerobot_ray {text(__version__)} from {text(plan.folder)}"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{text(plan.name)} · sweep</title><style>{style}</style></head>"
        f"<body><main>{body}<footer>{foot}</footer></main>"
        f"<script type='application/json' id=trials-data>{json.dumps(data).replace('<', chr(92) + 'u003c')}</script>"
        f"<script>{script}</script></body></html>"
    )


def _shown(state: SweepState) -> list[Shown]:
    """Trials with their place between best and worst, by rank: one that diverged does not wash out the rest."""
    best = best_trial(state)
    scores = {trial.number: trial.score(state.sweep) for trial in state.trials.values()}
    order = sorted((state.sweep.sign * score, number) for number, score in scores.items() if score is not None)
    places = {number: 1.0 - place / max(1, len(order) - 1) for place, (_, number) in enumerate(order)}
    return [
        Shown(trial, scores[trial.number], places.get(trial.number), trial is best) for trial in state.trials.values()
    ]


def _varied(plan: SweepPlan, shown: list[Shown]) -> list[str]:
    return [name for name in plan.sweep.space if len({as_text(one.trial.values.get(name)) for one in shown}) > 1]


def _spacings(plan: SweepPlan) -> dict[str, Spacing]:
    """Parameter -> how its values lie on an axis."""
    found: dict[str, Spacing] = {}
    for name, branches in plan.sweep.space.items():
        choices = [choice for branch in branches for choice in branch.values.choices or ()]
        is_list = all(branch.values.choices is not None for branch in branches)
        is_wide = (
            is_list
            and len(choices) > 2
            and is_number(choices)
            and min(choices) > 0
            and max(choices) / min(choices) >= 50
        )
        is_log = is_wide or any(branch.values.is_log for branch in branches)
        found[name] = "log" if is_log else "list" if is_list else "linear"
    return found


def _header(plan: SweepPlan, state: SweepState) -> str:
    sweep, best, use = plan.sweep, best_trial(state), use_of(state)
    kinds = {kind: sum(trial.status == kind for trial in state.trials.values()) for kind in _KINDS}
    ended = sum(kinds.values())
    word, kind = ("done", "good") if state.is_done else ("not done", "warn")
    how = f"{sweep.searcher.type} search" + ("" if sweep.scheduler.type == "none" else f", {sweep.scheduler.type}")
    about = f"{count(len(state.trials), 'trial')} of {plan.config.policy.type if plan.config.policy else ''} on "
    about += f"{plan.config.dataset.repo_id}: {how} over {', '.join(sweep.space)}."
    tiles = [
        ("best " + sweep.metric, "–" if best is None else short(best.score(sweep) or 0.0), _best_of(plan, state)),
        ("trials", f"{ended}", ", ".join(f"{number} {name}" for name, number in kinds.items() if number)),
        (
            "steps trained",
            f"{use.steps:,}",
            f"{percent(use.saved)} saved by stopping" if use.saved > 0.001 else "none saved",
        ),
        ("took", duration(use.wall_s), f"{count(use.slots, 'trial')} at once"),
        ("slots busy", percent(use.busy), "between the first trial's begin and the last's"),
    ]
    boxes = "".join(
        f"<div class=tile><b>{text(value)}</b><span>{text(name)}</span><em>{text(extra)}</em></div>"
        for name, value, extra in tiles
    )
    lead, command = "", ""
    if best is not None:
        found = " · ".join(
            f"<span class=pick><em>{text(name)}</em> <b>{text(as_text(value))}</b></span>"
            for name, value in best.values.items()
        )
        lead = f"<div class=picks data-trial={best.number}>{found}</div>"
        lines = "\n\n".join(f"# {what}\n{line}" for what, line in commands(plan, best).items())
        command = f"<pre class=command>{text(lines)}</pre>"
    return (
        f"<header><div class=title><h1>{text(plan.name)}</h1>{badge(word, kind)}</div>"
        f"<p class=about>{text(about)}</p></header><div class='tiles five'>{boxes}</div>"
        f"{lead}{command}"
    )


def _best_of(plan: SweepPlan, state: SweepState) -> str:
    best = best_trial(state)
    if best is None:
        return "no trial brought a value"
    mean = set_score(state.of_set(best.set_number), state.sweep) if plan.seeds > 1 else None
    return f"trial {best.name}" + (f", mean of its seeds {short(mean)}" if mean is not None else "")


def _parallel(plan: SweepPlan, shown: list[Shown]) -> str:
    names = _varied(plan, shown)
    if not names or not any(one.score is not None for one in shown):
        return ""
    picture = charts.parallel(shown, names, plan.sweep.metric, _spacings(plan), mode=plan.sweep.mode)
    key = "<span class=ramp><i></i>worst to best</span>"
    lead = "A line per trial, through its values to what came of them. Point at one to see it everywhere."
    return section(
        "parallel", "All trials at a glance", lead, figure("Parallel coordinates", picture, key=key, wide=True)
    )


def _against(plan: SweepPlan, shown: list[Shown]) -> str:
    names, spacings = _varied(plan, shown)[:MOST_CHARTS], _spacings(plan)
    scores = np.array([one.score for one in shown if one.score is not None])
    if not names or not len(scores):
        return ""
    is_log = wants_log(scores)

    def draw(shape: tuple[int, int]) -> list[str]:
        pictures = [(name, charts.against(shown, name, is_log, shape, spacing=spacings[name])) for name in names]
        return [figure(name, picture) for name, picture in pictures if picture]

    lead = f"{plan.sweep.metric} over each parameter by itself; hollow points were stopped early."
    return section("against", "Each parameter", lead, grid(draw, half=HALF, third=THIRD))


def _curves(plan: SweepPlan, state: SweepState, shown: list[Shown]) -> str:
    last = max((step for one in shown for step, _ in one.trial.reports), default=0)
    picture = charts.curves(shown, last)
    if not picture:
        return ""
    stopped = sum(one.trial.status == "stopped" for one in shown)
    lead = f"{count(stopped, 'trial')} stopped before the end." if stopped else ""
    took = sum(len(one.trial.took_over) for one in shown)
    if took:
        lead += f" {count(took, 'time')} a trial went on from a better one's checkpoint (diamonds)."
    return section("curves", "Curves", lead.strip(), figure(plan.sweep.metric, picture, wide=True))


def _importance(plan: SweepPlan, shown: list[Shown]) -> str:
    names, spacings = _varied(plan, shown), _spacings(plan)
    judged = [one for one in shown if one.score is not None]
    if len(names) < 2 or not judged:
        return ""
    scores = [plan.sweep.sign * (one.score if one.score is not None else math.inf) for one in judged]
    found = [
        (name, importance([one.trial.values.get(name) for one in judged], scores, is_log=spacings[name] == "log"))
        for name in names
    ]
    found.sort(key=lambda entry: -1.0 if entry[1] is None else entry[1], reverse=True)
    lead = (
        f"Share of the trials' ranking by {plan.sweep.metric} that each parameter explains by itself, from "
        f"{count(len(judged), 'trial')}. What matters only together with something else shows little here."
    )
    return section("importance", "What mattered", lead, figure("Explained by", charts.bars(found), wide=True))


def _trials(plan: SweepPlan, state: SweepState) -> str:
    names, best = list(plan.sweep.space), best_trial(state)
    has_seeds = plan.seeds > 1
    heads = [
        "trial",
        *map(text, names),
        *(["seed"] if has_seeds else []),
        text(plan.sweep.metric),
        "steps",
        "time",
        "ended",
    ]
    rows = []
    for trial in ranked(state):
        score = trial.score(plan.sweep)
        report = Path(TRIALS_DIR) / trial.name / "report.html"
        name = f"<a href='{report.as_posix()}'>{trial.name}</a>" if (plan.folder / report).exists() else trial.name
        star = " <span class=star title=best>★</span>" if trial is best else ""
        reason = f" <span class=why>{text(trial.reason)}</span>" if trial.reason else ""
        rows.append(
            [
                f"<span data-trial={trial.number}>{name}{star}</span>",
                *(text(as_text(trial.values[name])) if name in trial.values else "–" for name in names),
                *([str(trial.seed)] if has_seeds else []),
                "–" if score is None else short(score),
                f"{trial.step:,}",
                duration(trial.busy_s(state.last_s)),
                badge(trial.status, _KINDS.get(trial.status, "plain")) + reason,
            ]
        )
    return section("trials", "Trials", "The best first.", table(heads, rows, numeric=range(1, len(heads) - 1)))


def _slots(state: SweepState, shown: list[Shown]) -> str:
    starts = [float(start["time"]) for start in state.starts]
    picture = charts.slots_over_time(shown, starts, state.last_s)
    if not picture:
        return ""
    again = f"The sweep was started {count(len(starts), 'time')}; the breaks are cut out." if len(starts) > 1 else ""
    return section("slots", "Slots", again, figure("Which trial was where, over time", picture, wide=True))


def _settings(plan: SweepPlan, state: SweepState) -> str:
    try:
        sweep_file = plan.file.read_text(encoding="utf-8")
    except OSError:
        sweep_file = ""
    best_file = plan.folder / BEST_FILE
    pieces = [folded("Sweep file", f"<pre>{text(sweep_file)}</pre>")] if sweep_file else []
    if best_file.exists():
        pieces.append(folded("best.yaml", f"<pre>{text(best_file.read_text(encoding='utf-8'))}</pre>"))
    flags = [(word.split("=", 1)[0], word.split("=", 1)[1]) for word in plan.words if "=" in word]
    if flags:
        pieces.append(folded("Flags of all trials", pairs(flags)))
    return section("settings", "Settings", "", *pieces) if pieces else ""
