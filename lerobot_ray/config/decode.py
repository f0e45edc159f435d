"""Raw values (JSON, YAML, text of flags) to config objects, by the types of the fields.

draccus holds the choices and decodes what is left to it; this walks the sections itself, because a message must name
the flag or the file and key, the value, what was expected, and the nearest known name.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from draccus.parsers.decoding import get_decoding_fn

from lerobot_ray.config.origin import Origin
from lerobot_ray.config.text import Text, read_yaml
from lerobot_ray.core.errors import ConfigError, LerobotRayError, nearest

T = TypeVar("T")
_NULL = ("", "~", "null", "Null", "NULL")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_PLAIN_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def decode(kind: type[T], raw: Any, *, origin: Origin | None = None, path: tuple[str, ...] = ()) -> T:
    """The object of type `kind` that `raw` describes. ConfigError says which setting is wrong and what was expected."""
    return _decode(kind, raw, path, origin or Origin())


def type_hints(kind: type) -> dict[str, Any]:
    """Field name -> type of a config class."""
    return _type_hints(kind)


@lru_cache(maxsize=256)
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def members(kind: Any) -> list[Any]:
    """What a field of type `kind` may hold: the members of a union, or the type itself."""
    return list(typing.get_args(kind)) if typing.get_origin(kind) in (Union, types.UnionType) else [kind]


def is_choice(kind: Any) -> bool:
    """Whether `kind` is a base with several kinds to choose from by `type` (not one of those kinds)."""
    return isinstance(kind, type) and "_choice_registry" in kind.__dict__


def expected(kind: Any) -> str:
    """What a value of type `kind` looks like, for messages and help."""
    parts = [part for part in members(kind) if part is not type(None)]
    names = [_expected_part(part) for part in parts]
    return " or ".join([*names, "null"] if len(parts) < len(members(kind)) else names)


def _expected_part(kind: Any) -> str:
    outer, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if kind in _PLAIN_NAMES:
        return _PLAIN_NAMES[kind]
    if outer is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    if outer in (list, tuple, set):
        if outer is tuple and Ellipsis not in inner:
            return f"a list of {len(inner)} values"
        return {int: "a list of whole numbers", float: "a list of numbers", str: "a list of texts"}.get(
            inner[0] if inner else Any, "a list"
        )
    if outer is dict or dataclasses.is_dataclass(outer):
        return "a mapping"
    return "any value" if kind is Any else getattr(kind, "__name__", str(kind))


def _decode(kind: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> Any:
    parts = members(kind)
    if isinstance(raw, Text):
        raw = _read_text(parts, raw, path, origin)
    if type(None) in parts:
        parts = [part for part in parts if part is not type(None)]
        if raw is None or (raw == "auto" and set(parts) <= {int, float, bool}):
            return None
    if len(parts) == 1:
        return _decode_part(parts[0], raw, path, origin)
    for part in parts:
        try:
            return _decode_part(part, raw, path, origin)
        except ConfigError:
            continue
    raise _mismatch(kind, raw, path, origin)


def _read_text(parts: list[Any], text: Text, path: tuple[str, ...], origin: Origin) -> Any:
    """A flag's text as a value: YAML, but where text is wanted it is taken as typed unless it is null or quoted."""
    stripped = text.strip()
    if any(part is str or part is Path for part in parts) and stripped not in _NULL:
        can_hold_list = any(typing.get_origin(part) in (list, tuple, dict) for part in parts)
        is_quoted = len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\""
        if not is_quoted and not (can_hold_list and stripped[0] in "[{"):
            return str(text)
    return read_yaml(text, name=origin.subject(path))


def _decode_part(kind: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> Any:
    outer, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if kind is Any or kind is object:
        return raw
    if dataclasses.is_dataclass(type(raw)) and isinstance(raw, outer):  # already decoded
        return raw
    if is_choice(kind):
        return _decode_choice(kind, raw, path, origin)
    if dataclasses.is_dataclass(outer):
        return _decode_section(outer, raw, path, origin)
    if outer is Literal:
        if raw in inner and type(raw) in {type(value) for value in inner}:
            return raw
        raise _mismatch(kind, raw, path, origin)
    if outer is dict or outer is Mapping:
        return _decode_dict(inner, raw, path, origin)
    if outer in (list, tuple, set):
        return _decode_list(kind, outer, inner, raw, path, origin)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = {**{member.name: member for member in kind}, **{member.value: member for member in kind}}
        if isinstance(raw, str) and raw in known:
            return known[raw]
        raise _mismatch(kind, raw, path, origin)
    return _decode_plain(kind, raw, path, origin)


def _decode_plain(kind: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> Any:
    is_number = isinstance(raw, int | float) and not isinstance(raw, bool)
    if kind is bool:
        if isinstance(raw, bool) or str(raw).lower() in _TRUE + _FALSE:
            return raw if isinstance(raw, bool) else raw.lower() in _TRUE
    elif kind is int:
        if is_number and raw == int(raw) and abs(raw) < 2**63:  # 1e5 is a whole number
            return int(raw)
    elif kind is float:
        if is_number:
            return float(raw)
    elif kind is str or kind is Path:
        if isinstance(raw, str) or (isinstance(raw, int) and is_number):
            return kind(str(raw))
        if isinstance(raw, Path):
            return kind(raw)
    elif kind is not type(None):
        try:
            return get_decoding_fn(kind)(raw, path)
        except Exception as error:  # a stranger's decoder may raise anything
            raise ConfigError(f"{origin.subject(path)}: {error}") from error
    raise _mismatch(kind, raw, path, origin)


def _decode_dict(inner: tuple[Any, ...], raw: Any, path: tuple[str, ...], origin: Origin) -> dict[Any, Any]:
    key_kind, value_kind = inner if len(inner) == 2 else (Any, Any)
    flag = origin.flag_below(path)
    if flag is not None:
        whole = f"--{'.'.join(path)}='{{...}}'"
        raise ConfigError(f"{origin.subject(flag)}: give the whole mapping as JSON or YAML text, {whole}.")
    if not isinstance(raw, Mapping):
        raise _mismatch(dict, raw, path, origin)
    return {
        _decode(key_kind, key, (*path, str(key)), origin): _decode(value_kind, value, (*path, str(key)), origin)
        for key, value in raw.items()
    }


def _decode_list(kind: Any, outer: Any, inner: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> Any:
    if not isinstance(raw, list | tuple):
        raise _mismatch(kind, raw, path, origin)
    kinds = list(inner) or [Any]
    if outer is not tuple or Ellipsis in kinds:
        kinds = kinds[:1] * len(raw)
    if len(kinds) != len(raw):
        raise _mismatch(kind, raw, path, origin)
    return outer(
        _decode(item, value, (*path, str(i)), origin) for i, (item, value) in enumerate(zip(kinds, raw, strict=True))
    )


def _decode_choice(kind: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> Any:
    if isinstance(raw, str):
        where = origin.spelled((*path, "type"), path)
        raise ConfigError(f"{origin.subject(path)}: to choose a kind, write {where}={raw}.")
    if not isinstance(raw, Mapping):
        raise _mismatch(kind, raw, path, origin)
    known = kind.names() if hasattr(kind, "names") else sorted(kind.get_known_choices())
    name = raw.get("type")
    if name is None:
        where = origin.spelled((*path, "type"), next(((*path, key) for key in raw), path))
        raise ConfigError(f"{origin.from_file(path)}{where} is missing. Known: {', '.join(known)}.")
    try:
        chosen = kind.get_choice_class(str(name))
    except ConfigError as error:
        raise ConfigError(f"{origin.from_file((*path, 'type'))}{error}") from error
    except KeyError as error:
        near = nearest(str(name), known)
        hint = f"Did you mean {near}?" if near else f"Known: {', '.join(known)}."
        raise ConfigError(f"{origin.subject((*path, 'type'))}: no such {'.'.join(path)}. {hint}") from error
    return _decode_section(chosen, {key: value for key, value in raw.items() if key != "type"}, path, origin)


def _decode_section(kind: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> Any:
    if isinstance(raw, Text):
        raw = read_yaml(raw, name=origin.subject(path))
    if not isinstance(raw, Mapping):
        raise _mismatch(kind, raw, path, origin)
    hints, fields = type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    for key in raw:
        if key not in fields:
            near = origin.suggestion((*path, str(key)), fields)
            raise ConfigError(f"{origin.subject((*path, str(key)))}: there is no such setting.{near}")
    arguments: dict[str, Any] = {}
    later: dict[str, Any] = {}
    for name, field in fields.items():
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name in raw:
            if "refused" in field.metadata and raw[name] not in (None, "null"):
                raise ConfigError(f"{origin.subject((*path, name))}: {field.metadata['refused']}.")
            value = _decode(hints[name], raw[name], (*path, name), origin)
            (arguments if field.init else later)[name] = value
        elif is_required and field.init:
            if not dataclasses.is_dataclass(hints[name]) or is_choice(hints[name]):
                where = ".".join((*path, name))
                add = f" Add --{where}=<{expected(hints[name])}>." if not origin.file else ""
                raise ConfigError(f"{origin.from_file(path)}{where} is missing.{add}")
            arguments[name] = _decode(hints[name], {}, (*path, name), origin)  # names what it lacks
    return _build(kind, arguments, later, path, origin)


def _build(kind: Any, arguments: dict, later: dict, path: tuple[str, ...], origin: Origin) -> Any:
    try:
        built = kind(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{origin.from_file(path)}{error}") from error
    except LerobotRayError:
        raise
    except Exception as error:  # a plugin's own check may raise anything
        where = ".".join(path) or kind.__name__
        raise ConfigError(f"{origin.from_file(path)}{where}: {error}") from error
    for name, value in later.items():
        object.__setattr__(built, name, value)  # may be frozen
    return built


def _mismatch(kind: Any, raw: Any, path: tuple[str, ...], origin: Origin) -> ConfigError:
    subject, wanted = origin.subject(path), expected(kind)
    got = "null" if raw is None else repr(raw)
    message = f"{subject}: expected {wanted}, got {got}."
    literals = [part for part in members(kind) if typing.get_origin(part) is Literal]
    choices = [str(value) for part in literals for value in typing.get_args(part)]
    near = nearest(str(raw), choices) if isinstance(raw, str) else None
    if near:
        message += f" Did you mean {near}?"
    elif kind is str and isinstance(raw, float | bool) and origin.from_file(path):
        message += " Put it in quotes."
    return ConfigError(message)
