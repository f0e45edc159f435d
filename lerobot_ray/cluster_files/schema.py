"""What a JSON schema finds wrong, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lerobot_ray.cluster_files.findings import Finding, Path
from lerobot_ray.core.errors import nearest

NAMES = {"object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number"}
NAMES |= {"boolean": "true or false", "null": "empty"}


def findings_of(errors: Iterable[Any]) -> list[Finding]:
    """Findings for jsonschema's ValidationErrors, in the order of the file's fields."""
    found: list[Finding] = []
    for error in sorted(errors, key=lambda error: [str(part) for part in error.absolute_path]):
        found += _in_words(error)
    return found


def _in_words(error: Any) -> list[Finding]:
    path: Path = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        return [_unknown(path, name, error.schema) for name in _extras(error.instance, error.schema)]
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return [Finding(level="error", message=f"has no `{name}`.", remedy="Add it.", path=path) for name in missing]
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        return [_wrong_type(path, error.instance, wanted)]
    if error.validator == "anyOf" and error.schema.get("$comment") == "quantity":
        return [_wrong_type(path, error.instance, ["quantity"])]
    if error.validator == "enum":
        words = [str(word) for word in error.validator_value]
        return [
            Finding(
                level="error",
                message=f"is {error.instance!r}, which is none of {', '.join(words)}.",
                remedy=_did_you_mean(str(error.instance), words) or f"Write {words[0]}.",
                path=path,
            )
        ]
    return [Finding(level="error", message=f"{error.message}.", path=path)]


def _unknown(path: Path, name: str, schema: Mapping[str, Any]) -> Finding:
    known = [str(key) for key in schema.get("properties", {})]
    remedy = _did_you_mean(name, known) or f"Remove it; known here: {', '.join(sorted(known)[:12])}."
    return Finding(level="error", message="is not a known field here.", remedy=remedy, path=(*path, name))


def _extras(instance: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", {})]
    known = schema.get("properties", {})
    return [name for name in instance if name not in known and not any(p.search(str(name)) for p in patterns)]


def _wrong_type(path: Path, value: Any, wanted: list[str]) -> Finding:
    if wanted == ["quantity"]:
        words, example = "an amount", "Write it as Kubernetes does: 500m, 4, 16Gi."
    else:
        words, example = " or ".join(NAMES.get(name, name) for name in wanted), ""
    if wanted == ["string"] and isinstance(value, bool | int | float):
        example = f'Write it in quotes: "{str(value).lower() if isinstance(value, bool) else value}".'
    return Finding(level="error", message=f"must be {words}, not {_shown(value)}.", remedy=example, path=path)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else repr(value)


def _did_you_mean(name: str, known: list[str]) -> str:
    found = nearest(name, known)
    return f"Did you mean {found}?" if found else ""
