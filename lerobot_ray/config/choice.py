"""A section that is one of several kinds, picked by its `type` key, where a kind is imported only when it is asked for.

It is draccus's choice registry with import paths in place of classes, so listing policies imports none of them, and
with a miss that says what to do. What is found is a dataclass; nobody here looks at what is in it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import draccus

from lerobot_ray.core.errors import ConfigError, nearest

logger = logging.getLogger(__name__)


class LazyChoice(draccus.ChoiceRegistry):
    """Base of a choice whose kinds are found by name, in this order: built in, already registered, entry point,
    bridge, installed plugin distributions. A subclass sets the class variables and its own empty `_choice_registry`."""

    section: ClassVar[str] = ""
    """What the section is called in flags, for messages: `policy`."""
    builtin: ClassVar[Mapping[str, str]] = {}
    """Kind -> import path `module:Class`."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Kind -> what to install to have it, for kinds known by name that this package does not bring."""
    entry_point_group: ClassVar[str] = ""
    plugin_prefix: ClassVar[str] = ""
    """Installed distributions whose names begin so are imported when nothing else knows the kind."""
    bridge: ClassVar[str] = ""
    """Import path `module:function` of a function from a kind to its class or None; a missing module is no bridge."""

    @classmethod
    def get_choice_class(cls, name: str) -> Any:
        """The class of kind `name`, imported now if need be. ConfigError names the nearest kind and what to install."""
        found = cls._find(name)
        if found is not None:
            return found
        failures = _import_plugins(cls.plugin_prefix)
        found = cls._find(name)
        if found is not None:
            return found
        raise ConfigError(cls._miss(name, failures))

    @classmethod
    def get_choice_name(cls, subcls: type) -> str:
        """The kind a class is registered as; ValueError for the base itself and for strangers, as draccus expects."""
        for name, known in cls._choice_registry.items():
            if known is subcls:
                return name
        raise ValueError(f"{subcls.__qualname__} is not registered as a kind of {cls.section}")

    @classmethod
    def names(cls) -> list[str]:
        """Every kind known by name, without importing any of them."""
        installed = (point.name for point in importlib.metadata.entry_points(group=cls.entry_point_group))
        return sorted({*cls.builtin, *cls._choice_registry, *cls.elsewhere, *installed})

    @classmethod
    def _find(cls, name: str) -> Any | None:
        if name in cls._choice_registry:
            return cls._choice_registry[name]
        if name in cls.builtin:
            return cls._adopt(name, _load(cls.builtin[name]))
        if cls.entry_point_group:
            for point in importlib.metadata.entry_points(group=cls.entry_point_group, name=name):
                return cls._adopt(name, point.load())
        bridge = _load_if_there(cls.bridge) if cls.bridge else None
        return bridge(name) if bridge is not None else None

    @classmethod
    def _adopt(cls, name: str, found: Any) -> Any:
        """Registers what an import path led to: a class, or a module that registered its class while importing."""
        if isinstance(found, type):
            cls._choice_registry.setdefault(name, found)
        return cls._choice_registry.get(name)

    @classmethod
    def _miss(cls, name: str, failures: Mapping[str, Exception]) -> str:
        if name in cls.elsewhere:
            message = f"{cls.section}.type={name} needs {cls.elsewhere[name]}."
        elif near := nearest(str(name), cls.names()):
            message = f"{cls.section}.type={name} is not a known kind of {cls.section}. Did you mean {near}?"
            message += f" It needs {cls.elsewhere[near]}." if near in cls.elsewhere else ""
        else:
            message = f"{cls.section}.type={name} is not a known kind of {cls.section}."
            message += f" Known: {', '.join(cls.names())}."
            if cls.plugin_prefix:
                message += f" Others come with an installed package named {cls.plugin_prefix}…"
                message += f" or an entry point in {cls.entry_point_group}."
        for plugin, error in failures.items():
            message += f" The plugin {plugin} failed to import: {type(error).__name__}: {error}."
        return message


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load_if_there(path: str) -> Any | None:
    module, _, _ = path.partition(":")
    try:
        there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not there either
        there = False
    return _load(path) if there else None


def _import_plugins(prefix: str) -> dict[str, Exception]:
    """Imports the installed distributions whose names begin with `prefix`, and returns those that could not be."""
    failures: dict[str, Exception] = {}
    if not prefix:
        return failures
    names = {str(d.metadata["Name"]).replace("-", "_").lower() for d in importlib.metadata.distributions()}
    for name in sorted(name for name in names if name.startswith(prefix)):
        try:
            importlib.import_module(name)
        except Exception as error:  # a stranger's module may raise anything; the message names it
            failures[name] = error
    return failures
