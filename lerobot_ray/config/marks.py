"""Marks on config fields, given as dataclass metadata: whose a field is, and what is said when it has no meaning here.

An unmarked field is one that LeRobot 0.6.1 has too, under the same name and with the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any

OURS: Mapping[str, Any] = {"ours": True}
"""LeRobot has no such field."""
NEWER: Mapping[str, Any] = {"newer": True}
"""Only LeRobot after 0.6.1 has the field; 0.6.1's parser refuses it."""
HIDDEN: Mapping[str, Any] = {"hidden": True}
"""Not a flag: in files only, and left out of help and documentation."""


def unused(notice: str) -> Mapping[str, Any]:
    """A field of LeRobot's that changes nothing here; `notice` is said once when somebody sets it."""
    return {"notice": notice}


def refused(reason: str) -> Mapping[str, Any]:
    """A field of LeRobot's that must stay null here."""
    return {"refused": reason}


def in_lerobot(convert: Callable[[Any], Any]) -> Mapping[str, Any]:
    """`convert` turns the field's JSON value into what LeRobot's own file gets in its place."""
    return {"in_lerobot": convert}


def is_own(field: Field) -> bool:
    """Whether the field must stay out of files that LeRobot 0.6.1 reads."""
    return "ours" in field.metadata or "newer" in field.metadata


def value_in_lerobot(field: Field, value: Any) -> Any:
    """The JSON value LeRobot's file gets for this field."""
    return field.metadata["in_lerobot"](value) if "in_lerobot" in field.metadata else value


def origin(field: Field) -> str:
    """Whose field it is, for help and documentation."""
    return "lerobot_ray" if "ours" in field.metadata else "newer lerobot" if "newer" in field.metadata else "lerobot"
