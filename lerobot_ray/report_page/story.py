"""The sections on how the run went and what it was: attempts over time, configuration, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from lerobot_ray.report_page.head import lost_steps
from lerobot_ray.report_page.markup import badge, folded, pairs, section, table, text
from lerobot_ray.report_page.run_folder import RunFolder
from lerobot_ray.report_page.strips import timeline
from lerobot_ray.report_page.words import count, duration, moment
from lerobot_ray.tracking.metric_log import AttemptLog

_KINDS = {"finished": "good", "stopped": "warn", "failed": "bad"}


def attempts(run: RunFolder) -> str:
    tries = run.log.attempts
    rows, bars = [], []
    for attempt, following in zip(tries, [*tries[1:], None], strict=True):
        word, kind = _ending(run, attempt)
        lost = max(0, attempt.last_step - following.first_step) if following else 0
        rows.append(
            [
                str(attempt.number),
                moment(attempt.start_s),
                duration(attempt.last_s - attempt.start_s),
                f"{attempt.first_step:,} – {attempt.last_step:,}",
                f"{attempt.info.get('world_size') or '–'}",
                f"{attempt.info.get('global_batch') or '–'}",
                f"{lost:,}" if lost else "",
                badge(word, kind) + (f" {text(attempt.message)}" if attempt.message else ""),
            ]
        )
        steps = f"attempt {attempt.number}: steps {attempt.first_step:,} to {attempt.last_step:,}, {word}"
        bars.append((attempt.start_s, attempt.last_s, kind, steps))
    heads = ["attempt", "began", "lasted", "steps", "workers", "samples a step", "trained again", "ended"]
    lead = "The run went through in one go."
    if len(tries) > 1:
        down = tries[-1].last_s - tries[0].start_s - sum(attempt.last_s - attempt.start_s for attempt in tries)
        again = lost_steps(run)
        lead = f"{count(len(tries), 'attempt')}, {duration(max(down, 0.0))} between them" + (
            f", {count(again, 'step')} trained again." if again else ", no step trained twice."
        )
    picture = timeline(bars) if len(tries) > 1 else ""
    return section("attempts", "Attempts", lead, picture, table(heads, rows, numeric=(0, 3, 4, 5, 6)))


def settings(run: RunFolder) -> str:
    environment = run.info.get("environment") or {}
    pieces = []
    if environment.get("command"):
        words = str(environment["command"]).replace(" --", "\n--").split("\n")  # lines break between flags, not in them
        pieces.append(f"<pre class=command>{' '.join(f'<span>{text(word)}</span>' for word in words)}</pre>")
    for earlier, later in pairwise(run.log.attempts):
        changed = _changes(earlier, later)
        if changed:
            pieces.append(folded(f"Changed for attempt {later.number}", table(["setting", "before", "then"], changed)))
    if run.config:
        pieces.append(folded("Configuration", pairs((name, value) for name, value in flat(run.config).items())))
    versions = [(name, str(value)) for name, value in (environment.get("versions") or {}).items()]
    machine = [
        (name.replace("_", " "), _shown(value))
        for name, value in environment.items()
        if name not in ("versions", "command", "packages")
    ]
    if versions or machine:
        pieces.append(folded("Versions and hardware", pairs([*versions, *machine])))
    return section("settings", "Settings", "", *pieces) if pieces else ""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names to values as text, plain values before sections."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if not (isinstance(value, Mapping) and value):
            found[f"{prefix}{key}"] = _shown(value)
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
    return found


def _changes(earlier: AttemptLog, later: AttemptLog) -> list[list[str]]:
    before, after = (flat(attempt.info.get("config") or {}) for attempt in (earlier, later))
    if not before or not after:
        return []
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [[text(name), text(before.get(name, "–")), text(after.get(name, "–"))] for name in names]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _ending(run: RunFolder, attempt: AttemptLog) -> tuple[str, str]:
    if attempt.status:
        return attempt.status, _KINDS.get(attempt.status, "plain")
    return ("running", "plain") if attempt is run.newest and run.is_running else ("killed", "bad")
