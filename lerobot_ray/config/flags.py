"""Words of a command line to a tree of settings whose types nobody has looked at yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot_ray.config.text import Text, read_yaml
from lerobot_ray.core.errors import ConfigError

Flags = dict[tuple[str, ...], Text]
"""Setting -> its text, in the order in which they are applied."""


def read_flags(argv: Sequence[str]) -> Flags:
    """`--a.b=text` and `--a.b text`. Of a name given twice the last counts; a name alone is a switch turned on."""
    flags: Flags = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise ConfigError(f"{word!r} is not a flag. Flags are written --name=value.")
        name, equals, text = word[2:].partition("=")
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else "true"
        path = tuple(name.split("."))
        if not all(path):
            raise ConfigError(f"--{name}: there is no such setting.")
        flags[path] = Text(text)
    # whole sections first, then the kind of a section, which decides what the rest of it may hold
    return dict(sorted(flags.items(), key=lambda item: (len(item[0]), item[0][-1] != "type")))


def lay_over(tree: dict[str, Any], flags: Mapping[tuple[str, ...], Text]) -> None:
    """Puts flags into a tree in place of what it holds. A new `type` replaces the section with all it holds."""
    for path, text in flags.items():
        section = tree
        for depth, key in enumerate(path[:-1], start=1):
            below = section.get(key)
            if isinstance(below, Text):  # --a='{…}' together with --a.b=…
                below = read_yaml(below, name=f"--{'.'.join(path[:depth])}")
            section[key] = section = below if isinstance(below, dict) else {}
        if path[1:] == ("type",) and section.get("type") not in (None, text):
            section.clear()
        section[path[-1]] = text


def read(value: Any) -> Any:
    """A setting's value where no type is known: flags as YAML, values of files as they are."""
    return read_yaml(value, name="flag") if isinstance(value, Text) else value


def is_true(value: Any) -> bool:
    """Whether a setting that may still be text says yes."""
    return str(value).lower() in ("true", "yes", "on")
