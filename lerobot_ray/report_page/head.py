"""The top of the page: what was trained, how it ended, the numbers one asks for first, and what deserves a look."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lerobot_ray.report_page.coverage import Coverage, ended_epochs
from lerobot_ray.report_page.markup import badge, text
from lerobot_ray.report_page.run_folder import RunFolder
from lerobot_ray.report_page.words import count, duration, moment, percent, short

HELD_OUT = ("eval/loss", "eval/eval_loss")
"""Ours, and LeRobot's name for it."""
MUCH_WAITING = 0.15
"""Share of the time spent waiting for data from which the page says what to do about it."""
LONG_ENOUGH_S = 120.0
"""In a shorter run it is mostly the wait for the first batch."""


def header(run: RunFolder) -> str:
    word, kind, sentence = outcome(run)
    tiles = "".join(
        f"<div class=tile><b>{text(value)}</b><span>{text(name)}</span><em>{text(extra)}</em></div>"
        for name, value, extra in _tiles(run)
    )
    notes = "".join(f"<li>{text(note)}</li>" for note in remarks(run))
    return (
        f"<header><div class=title><h1>{text(run.info.get('name') or run.folder.name)}</h1>{badge(word, kind)}</div>"
        f"<p class=about>{text(_about(run))}</p><p class=lead>{text(sentence)}</p></header>"
        f"<div class=tiles>{tiles}</div>" + (f"<ul class=remarks>{notes}</ul>" if notes else "")
    )


def outcome(run: RunFolder) -> tuple[str, str, str]:
    """(one word, good/warn/bad/plain, a sentence)."""
    newest, total = run.newest, run.total_steps
    place = f"step {run.last_step:,}" + (f" of {total:,}" if total else "")
    if newest.status == "finished":
        return "finished", "good", f"Finished at {place} on {moment(newest.last_s)}."
    if newest.status == "stopped":
        return "stopped", "warn", f"Stopped as asked at {place} on {moment(newest.last_s)}; it can be resumed."
    if newest.status == "failed":
        reason = f": {newest.message}" if newest.message else "."
        return "failed", "bad", f"Failed at {place} on {moment(newest.last_s)}{reason}"
    if run.is_running:
        return "running", "plain", f"At {place}, {duration(run.read_s - newest.last_s)} before this page was written."
    return (
        "no end recorded",
        "bad",
        f"Last heard of at {place} on {moment(newest.last_s)}. It was killed, or the machine went away.",
    )


def remarks(run: RunFolder) -> list[str]:
    """Sentences on what is out of the ordinary. None is the usual case."""
    found = []
    waiting = run.step_time.share("waiting for data") if run.step_time else 0.0
    if run.step_time and waiting > MUCH_WAITING and run.step_time.whole_s > LONG_ENOUGH_S:
        found.append(
            f"Training waited for data {percent(waiting)} of the time. More decode workers (--num_workers), a cache of "
            "decoded frames or CPUs on other nodes would help."
        )
    skipped = run.log.series.get("train/skipped_steps")
    if skipped is not None and skipped.finite.value.sum() > 0:
        found.append("Some steps were skipped because their loss was not finite; see the curve of skipped steps.")
    loss = run.log.series.get("train/loss")
    if loss is not None and not np.isfinite(loss.value).all():
        bad = loss.step[~np.isfinite(loss.value)]
        found.append(f"The loss was not finite in {count(len(bad), 'log line')}, first at step {bad[0]:,}.")
    lost = lost_steps(run)
    if lost:
        found.append(
            f"{count(lost, 'step')} {'was' if lost == 1 else 'were'} trained again after restarts. "
            "The curves show what the model was trained on, without the steps taken back."
        )
    if isinstance(run.coverage, Coverage):
        short_of = [number for number, share in enumerate(ended_epochs(run.coverage)) if share < 1]
        if short_of:
            found.append(f"{count(len(short_of), 'epoch')} did not use every sample once, first epoch {short_of[0]}.")
    incomplete = [entry.name for entry in run.checkpoints if not entry.is_complete]
    if incomplete:
        found.append(f"Not a complete checkpoint: {', '.join(incomplete[:3])}.")
    if run.log.unreadable_lines:
        found.append(f"{count(run.log.unreadable_lines, 'line')} of metrics.jsonl could not be read (torn by a kill).")
    return found


def lost_steps(run: RunFolder) -> int:
    """Steps an attempt had taken beyond where the next one began."""
    return sum(max(0, attempt.last_step - following.first_step) for attempt, following in pairwise(run.log.attempts))


def _about(run: RunFolder) -> str:
    """One sentence: policy, data, hardware."""
    config, facts, info = run.config, run.facts, run.info
    policy = (config.get("policy") or {}).get("type", "a policy")
    size = f" ({facts['parameters'] / 1e6:,.3g} M parameters)" if facts.get("parameters") else ""
    data = (config.get("dataset") or {}).get("repo_id") or "a dataset"
    inside = [
        count(facts[name], noun)
        for name, noun in (("num_episodes", "episode"), ("num_samples", "sample"))
        if facts.get(name)
    ]
    devices = (info.get("environment") or {}).get("devices") or []
    device = f", {devices[0]}" if devices and devices[0] != "cpu" else ", CPU" if devices else ""
    workers, batch = info.get("world_size"), info.get("global_batch")
    where = f" on {count(workers, 'worker')}{device}" if workers else ""
    at_once = f", {batch:,} samples a step" if batch else ""
    holds = f" ({', '.join(inside)})" if inside else ""
    return f"Policy {policy}{size}, trained on {data}{holds}{where}{at_once}."


def _tiles(run: RunFolder) -> list[tuple[str, str, str]]:
    """(name, value, smaller print)."""
    series, found = run.log.series, []
    loss = series["train/loss"].finite.value if "train/loss" in series else np.zeros(0)
    done = f"of {run.total_steps:,}" if run.total_steps else ""
    found.append(("steps", f"{run.last_step:,}", done))
    if "train/loss" in series:
        tail = loss[-max(1, len(loss) // 50) :]
        found.append(("training loss", short(float(tail.mean())) if len(loss) else "–", "at the end"))
    held_out = next((series[name].finite for name in HELD_OUT if name in series), None)
    if held_out is not None and len(held_out.value):
        best = int(held_out.value.argmin())
        found.append(("held-out loss", short(float(held_out.value[best])), f"best, at step {held_out.step[best]:,}"))
    success = series["eval/pc_success"].finite if "eval/pc_success" in series else None
    if success is not None and len(success.value):
        best = int(success.value.argmax())
        found.append(("success", f"{success.value[best]:.3g} %", f"best, at step {success.step[best]:,}"))
    rates = series["train/samples_per_s"].finite.value if "train/samples_per_s" in series else np.zeros(0)
    if len(rates):
        found.append(("samples a second", short(float(np.median(rates))), "median"))
    if run.step_time is not None:
        found.append(("waiting for data", percent(run.step_time.share("waiting for data")), "of all time"))
    epochs = series["train/epochs"].finite.value if "train/epochs" in series else np.zeros(0)
    if len(epochs):
        found.append(("epochs", short(float(epochs[-1])), ""))
    seconds = sum(attempt.last_s - attempt.start_s for attempt in run.log.attempts)
    tries = len(run.log.attempts)
    found.append(("training time", duration(seconds), f"in {count(tries, 'attempt')}" if tries > 1 else ""))
    return found
