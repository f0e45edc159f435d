"""Config objects to JSON values as LeRobot writes them: enums by value, tuples as lists, `type` first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from os import PathLike, fspath
from typing import Any


def encode(value: Any) -> Any:
    """The JSON value of a config object or of one of its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        encoded = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        kind = choice_name(value)
        return encoded if kind is None else {"type": kind, **encoded}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {str(encode(key)): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [encode(item) for item in value]
    return value


def choice_name(value: Any) -> str | None:
    """The kind a config object is registered as, or None when it is not one of a choice."""
    kind = type(value)
    return kind.get_choice_name(kind) if hasattr(kind, "_choice_registry") else None
