"""Errors cross processes: every class of the tree, wherever it is defined, comes back whole from a pickle."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from lerobot_ray.core import errors
from lerobot_ray.core.errors import FrameError, LerobotRayError, nearest

PACKAGE = Path(errors.__file__).parents[1]
_VALUES = {"int": 3, "float": 0.5, "str": "what was wrong, where, and what to do", "Path": Path("a/b.parquet")}


def example(kind: type[LerobotRayError]) -> LerobotRayError:
    """An error of this class, with something in every argument of its `__init__`."""
    if not inspect.isfunction(kind.__init__):  # Exception's own, which takes a message
        return kind(_VALUES["str"])
    given: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for name, parameter in inspect.signature(kind).parameters.items():
        words = re.findall(r"\w+", str(parameter.annotation))
        value = _VALUES.get(words[0]) if len(words) == 1 or "None" in words else [_VALUES[words[-1]]]
        assert value is not None, f"add an example of {parameter.annotation}, which {kind.__name__} takes, to _VALUES"
        given[parameter.kind is parameter.KEYWORD_ONLY][name] = value
    return kind(*given[False].values(), **given[True])


def error_classes() -> list[type[LerobotRayError]]:
    """Every class of the tree in the package; modules are imported only if they define one."""
    known, found = {"LerobotRayError"}, []
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    grew = True
    while grew:
        grew = False
        for path, tree in modules.items():
            for node in ast.walk(tree):
                bases = {getattr(b, "id", getattr(b, "attr", "")) for b in getattr(node, "bases", [])}
                if isinstance(node, ast.ClassDef) and node.name not in known and bases & known:
                    known.add(node.name)
                    found.append((path, node.name))
                    grew = True
    dotted = [(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts), name) for path, name in found]
    return [LerobotRayError, *(getattr(importlib.import_module(module), name) for module, name in dotted)]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_error_survives_a_pickle(kind):
    error = example(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_tree_is_the_one_its_docstring_draws():
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error") and word[0].isupper()}
    defined = {kind.__name__ for kind in error_classes() if kind.__module__ == errors.__name__}
    assert defined <= drawn


def test_frame_error_says_where():
    error = FrameError("nearest frame is 0.04 s away", file="videos/a.mp4", camera="top", episode=7)
    assert str(error) == "episode 7, top, videos/a.mp4: nearest frame is 0.04 s away"
    assert str(FrameError("no frames")) == "no frames"


@pytest.mark.parametrize(("name", "expected"), [("chunk_sze", "chunk_size"), ("zzz", None), ("", None)])
def test_nearest(name, expected):
    assert nearest(name, ["chunk_size", "batch_size", "steps"]) == expected
