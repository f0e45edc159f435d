"""`--help`: every flag by section, with its default and what it is for."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from lerobot_ray.config.schema import Section, Setting, sections

_MARKS = {"lerobot": " ", "newer lerobot": "+", "lerobot_ray": "*"}
_CLOSING = (
    "Flags are lerobot-train's and mean the same. * only here  + in LeRobot after 0.6.1 too",
    "Lists and mappings are JSON or YAML text; null empties a setting. --config_path=FILE reads settings from a "
    "JSON or YAML file, a checkpoint or a run folder, and flags override it.",
)


def help_text(kind: type, *, usage: str, about: str, chosen: Mapping[str, type] | None = None) -> str:
    """The whole help page of a config class, as wide as the terminal up to 110 columns."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    parts = [f"usage: {usage}", textwrap.fill(about, width)]
    for section in sections(kind, chosen=chosen):
        if section.settings or section.doc:
            parts.append(_section_text(section, width))
    parts.append("\n".join(textwrap.fill(line, width) for line in _CLOSING))
    return "\n\n".join(parts)


def default_text(setting: Setting) -> str:
    """The default as one would type it; empty where a value must be given."""
    if setting.default is dataclasses.MISSING:
        return ""
    return _typed(setting.default)


def _typed(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _section_text(section: Section, width: int) -> str:
    heading = f"{section.name}: {section.doc}" if section.name else section.doc
    lines = textwrap.wrap(heading, width)
    for setting in section.settings:
        default = default_text(setting)
        if setting.default is dataclasses.MISSING:
            start = f"{_MARKS[setting.origin]} --{setting.name} (required)"
        else:
            start = f"{_MARKS[setting.origin]} --{setting.name}={default}"
        start = start if len(start) <= width else start[: width - 2] + " …"
        choices = f" [{setting.expected}]" if setting.expected.startswith("one of") else ""
        notice = f" Accepted and ignored: {setting.notice}." if setting.notice else ""
        lines += [start, *_indented(setting.doc + choices + notice, width)]
    return "\n".join(lines)
