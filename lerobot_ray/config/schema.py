"""Every setting of a config class as a flat list: for help, for the documentation, and to suggest names from."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from lerobot_ray.config.decode import expected, is_choice, members, type_hints
from lerobot_ray.config.encode import encode
from lerobot_ray.config.marks import origin

PRESET = "<preset>"
"""Stands for the default of a setting that each kind of a choice sets for itself."""


@dataclass(frozen=True)
class Setting:
    """One setting."""

    name: str
    """Dotted: dataset.repo_id."""
    expected: str
    """What its value looks like."""
    default: Any
    """JSON value of the default; MISSING where there is none."""
    doc: str
    origin: str
    """lerobot, newer lerobot or lerobot_ray."""
    notice: str
    """Why it changes nothing here, or an empty string."""


@dataclass(frozen=True)
class Section:
    """Settings that stand together under one heading."""

    name: str
    """Dotted, with the chosen kind: policy (type=act). Empty for the root."""
    doc: str
    settings: list[Setting]


def sections(
    kind: Any,
    *,
    chosen: Mapping[str, type] | None = None,
    path: tuple[str, ...] = (),
    doc: str = "",
    owner: str = "lerobot",
) -> Iterator[Section]:
    """The settings of `kind`, section by section, the root's own first.

    chosen: section -> the class of the kind chosen there. Of a choice that nobody made, what all kinds share is listed.
    """
    chosen, hints, docs = chosen or {}, type_hints(kind), field_docs(kind)
    own: list[Setting] = []
    below: list[tuple[type, dataclasses.Field]] = []
    for field in dataclasses.fields(kind):
        part = _section_of(hints[field.name], chosen.get(".".join((*path, field.name))))
        if "hidden" in field.metadata or "refused" in field.metadata:
            continue
        if part is None:
            setting = _setting(field, hints[field.name], docs.get(field.name, ""), path, owner)
            own.append(dataclasses.replace(setting, default=PRESET) if _is_left_to_kinds(kind, field) else setting)
        else:
            below.append((part, field))
    title = ".".join(path)
    if hasattr(kind, "_choice_registry") and path:
        own.insert(0, _type_setting(kind, path))
        title += f" (type={kind.get_choice_name(kind)})" if not is_choice(kind) else ""
    yield Section(title, doc or first_paragraph(kind), own)
    for part, field in below:
        inner_doc, inner_owner = docs.get(field.name, ""), _owner(field, owner)
        yield from sections(part, chosen=chosen, path=(*path, field.name), doc=inner_doc, owner=inner_owner)


def names(kind: type, *, chosen: Mapping[str, type] | None = None) -> set[str]:
    """The dotted names of all settings."""
    return {setting.name for section in sections(kind, chosen=chosen) for setting in section.settings}


@lru_cache(maxsize=256)
def field_docs(kind: type) -> Mapping[str, str]:
    """Field name -> the docstring under it, of the class and its bases, each on one line."""
    docs: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # defined at a prompt, or compiled
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, following in pairwise(body):
            is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            if is_field and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                docs[statement.target.id] = " ".join(str(following.value.value).split())  # type: ignore[attr-defined]
    return docs


def first_paragraph(kind: type) -> str:
    """The beginning of a class's docstring, on one line; nothing for one that dataclass made up."""
    doc = inspect.cleandoc(kind.__doc__ or "")
    return "" if doc.startswith(f"{kind.__name__}(") else " ".join(doc.split("\n\n")[0].split())


def _section_of(hint: Any, chosen: type | None) -> type | None:
    for part in members(hint):
        if isinstance(part, type) and is_choice(part):
            return chosen or part
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            return part
    return None


def _is_left_to_kinds(kind: Any, field: dataclasses.Field) -> bool:
    return is_choice(kind) and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _owner(field: dataclasses.Field, section_owner: str) -> str:
    return origin(field) if section_owner == "lerobot" else section_owner


def _setting(field: dataclasses.Field, hint: Any, doc: str, path: tuple[str, ...], owner: str) -> Setting:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    name = ".".join((*path, field.name))
    value = default if default is dataclasses.MISSING else encode(default)
    return Setting(name, expected(hint), value, doc, _owner(field, owner), field.metadata.get("notice", ""))


def _type_setting(kind: Any, path: tuple[str, ...]) -> Setting:
    base = next(base for base in kind.__mro__ if is_choice(base))
    known = base.names() if hasattr(base, "names") else sorted(base.get_known_choices())
    name = None if is_choice(kind) else kind.get_choice_name(kind)
    return Setting(".".join((*path, "type")), f"one of {', '.join(known)}", name, "Which kind.", "lerobot", "")
