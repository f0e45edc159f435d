"""Values as text: what YAML makes of a word, with the surprises of YAML 1.1 taken out."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from lerobot_ray.core.errors import ConfigError


class Text(str):
    """A value from the command line, not yet read: what it means depends on the type of the flag."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core words: `005000` and `no` stay text, `1e-4` is a number, dates are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _to_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    text = loader.construct_scalar(node)
    # 005000 looks like a float to the pattern above, because 0.5 must; what has a leading zero is a name
    return text if re.fullmatch(r"[-+]?0[0-9]+", text) else loader.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:float", _to_float)


def read_yaml(text: str, *, name: str) -> Any:
    """The value of YAML (or JSON) text; `name` says in errors where it came from."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise ConfigError(f"{name}{place}: not valid YAML: {problem}.") from error


def read_json(text: str, *, name: str) -> Any:
    """The value of JSON text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}.") from error
