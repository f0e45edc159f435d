"""What a check has to say about a file: where, what is wrong, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Path = tuple[str | int, ...]
"""Keys and list places from the root of a document to a value."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One remark. `error`: it would not work as meant; `warning`: it would, at a price; `unset`: yours to fill in."""

    level: Literal["error", "warning", "unset"]
    message: str
    remedy: str = ""
    path: Path = ()
    line: int | None = None


def field_name(path: Path) -> str:
    """`worker.groups[1].image` for a path."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def line_of(finding: Finding, file: str) -> str:
    """The finding as one line of text, in the form editors jump to."""
    where = f"{file}:{finding.line}" if finding.line else file
    field = f" {field_name(finding.path)}:" if finding.path else ""
    remedy = f" {finding.remedy}" if finding.remedy else ""
    return f"{where}:{field} {finding.message}{remedy}"
