"""Rows of language columns as items have them, whichever arrow types the file chose.

LeRobot declares `timestamp` as float32 and each tool call as JSON text; its annotator writes what pyarrow infers,
doubles and nested structs. Both come out as the same Python values.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def language_rows(stored: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """One frame's language column: a list of dicts with role, content, style, camera, tool_calls (and timestamp)."""
    return [_row(row) for row in stored or []]


def _row(stored: dict[str, Any]) -> dict[str, Any]:
    row = dict(stored)
    if row.get("timestamp") is not None:
        row["timestamp"] = float(np.float32(row["timestamp"]))
    if row.get("tool_calls") is not None:
        row["tool_calls"] = [json.loads(call) if isinstance(call, str) else call for call in row["tool_calls"]]
    return row
