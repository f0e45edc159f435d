"""What is wrong with a dataset, as a list: found by `validate`, shown as a table, kept as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lerobot_ray.data.ranges import ranges

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `episodes` is empty when it concerns the dataset as a whole."""

    file: str
    problem: str
    remedy: str
    episodes: tuple[int, ...] = ()
    severity: Severity = "error"
    """An error breaks or misleads training; a warning is worth knowing and nothing more."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"episodes": list(self.episodes)}


def bad_episodes(problems: Iterable[Problem]) -> list[int]:
    """Episodes with an error of their own, ascending: the ones to leave out of training."""
    return sorted({episode for problem in problems if problem.severity == "error" for episode in problem.episodes})


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """The same problem in the same file told once, with all its episodes; errors first, then by episode."""
    by_text: dict[tuple[str, str, str, Severity], set[int]] = {}
    for found in problems:
        by_text.setdefault((found.file, found.problem, found.remedy, found.severity), set()).update(found.episodes)
    rows = [
        Problem(file, problem, remedy, tuple(sorted(episodes)), severity)
        for (file, problem, remedy, severity), episodes in by_text.items()
    ]
    return sorted(rows, key=lambda row: (row.severity != "error", row.episodes[:1] or (-1,), row.file))


def table(problems: Sequence[Problem], *, width: int = 120, limit: int = 40) -> str:
    """The problems as a table for a terminal of `width` columns; of more than `limit`, the rest is counted."""
    head = ("", "episode", "file", "what is wrong, and what to do")
    rows = [
        (
            "✗" if row.severity == "error" else "!",
            ranges(row.episodes) or "–",
            row.file or "–",
            f"{row.problem} {row.remedy}",
        )
        for row in problems[:limit]
    ]
    widths = [
        1,
        min(14, max(len(head[1]), *(len(row[1]) for row in rows))),
        min(42, max(len(head[2]), *(len(row[2]) for row in rows))),
    ]
    widths.append(max(30, width - sum(widths) - 6))
    lines = [_line(head, widths), _line(["─" * size for size in widths], widths)]
    for row in rows:
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            lines.append(_line([cell[number] if number < len(cell) else "" for cell in cells], widths))
    if len(problems) > limit:
        lines.append(f"… and {len(problems) - limit} more")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()
