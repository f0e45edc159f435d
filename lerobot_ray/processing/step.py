"""One step of a pipeline: what it must offer, and how a step's name in a file leads to its class."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from lerobot_ray.core.errors import ProcessorError, nearest
from lerobot_ray.processing.transition import Transition

_HERE = "lerobot_ray.processing"
BUILTIN = {
    "rename_observations_processor": f"{_HERE}.rename:RenameObservations",
    "to_batch_processor": f"{_HERE}.batch:ToBatch",
    "device_processor": f"{_HERE}.device:ToDevice",
    "normalizer_processor": f"{_HERE}.normalize:Normalizer",
    "unnormalizer_processor": f"{_HERE}.normalize:Unnormalizer",
    "tokenizer_processor": f"{_HERE}.tokenize:Tokenize",
    "smolvla_new_line_processor": f"{_HERE}.prompt:SmolVLANewLine",
    "pi0_new_line_processor": f"{_HERE}.prompt:Pi0NewLine",
    "pi05_prepare_state_tokenizer_processor_step": f"{_HERE}.prompt:Pi05Prompt",
    "relative_actions_processor": f"{_HERE}.relative:RelativeActions",
    "absolute_actions_processor": f"{_HERE}.relative:AbsoluteActions",
}
"""Registry name, as LeRobot writes it -> where the class is. Imported when a pipeline names it."""

LEROBOT_CLASSES = {
    "RenameObservationsProcessorStep": "rename_observations_processor",
    "AddBatchDimensionProcessorStep": "to_batch_processor",
    "DeviceProcessorStep": "device_processor",
    "NormalizerProcessorStep": "normalizer_processor",
    "UnnormalizerProcessorStep": "unnormalizer_processor",
    "TokenizerProcessorStep": "tokenizer_processor",
    "NewLineTaskProcessorStep": "smolvla_new_line_processor",
    "Pi0NewLineProcessor": "pi0_new_line_processor",
    "Pi05PrepareStateTokenizerProcessorStep": "pi05_prepare_state_tokenizer_processor_step",
    "RelativeActionsProcessorStep": "relative_actions_processor",
    "AbsoluteActionsProcessorStep": "absolute_actions_processor",
}
"""LeRobot's class names, for files that name its steps by class path: they lead to ours, LeRobot need not be there."""

_registered: dict[str, type] = {}


class Step:
    """Takes a transition, returns a transition, never changes the one it was given.

    The constructor's keyword arguments are the step's `config` in the file; tensors it must keep go into `state_dict`.
    A step of somebody else's need not derive from this, it need only have the members it uses.
    """

    registry_name: ClassVar[str] = ""
    """Its name in files; empty: files name the class by its import path."""
    state_arguments: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that take the place of the saved state when they are given."""

    def __call__(self, transition: Transition) -> Transition:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors saved beside the JSON; none, no file."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""

    def reset(self) -> None:
        """Forgets what was remembered of the running episode."""


StepClass = TypeVar("StepClass", bound=type)


def register_step(name: str):
    """Class decorator: files name this step `name`. A name that is taken raises ProcessorError."""

    def register(cls: StepClass) -> StepClass:
        path = f"{cls.__module__}:{cls.__qualname__}"
        other = _registered.get(name, cls)
        if BUILTIN.get(name, path) != path or f"{other.__module__}:{other.__qualname__}" != path:
            raise ProcessorError(f"a step named {name!r} is registered already. Give {path} another name.")
        cls.registry_name = name  # type: ignore[attr-defined]
        _registered[name] = cls
        return cls

    return register


def step_names() -> list[str]:
    """Every name a file may use, without importing the steps."""
    return sorted({*BUILTIN, *_registered})


def step_class(name: str) -> type | None:
    """The class registered as `name`; None when nobody registered it."""
    if name not in _registered and name in BUILTIN:
        importlib.import_module(BUILTIN[name].partition(":")[0])
    return _registered.get(name)


def class_at(path: str) -> type | None:
    """The class at `package.module.Class`, ours where LeRobot's own class is named; None when it cannot be imported."""
    module, _, name = path.rpartition(".")
    if path.startswith("lerobot.") and name in LEROBOT_CLASSES:
        return step_class(LEROBOT_CLASSES[name])
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def name_of(step: Any) -> str:
    """What overrides and messages call a step: its registry name, or its class's."""
    return getattr(step, "registry_name", "") or getattr(step, "_registry_name", "") or type(step).__name__


def unknown_step(entry: dict[str, Any]) -> str | None:
    """What is wrong with a step of a file, or None when its class can be had."""
    if name := entry.get("registry_name"):
        if step_class(name) is not None:
            return None
        near = nearest(name, step_names())
        return f"{name}" + (f" (did you mean {near}?)" if near else "")
    path = entry.get("class", "")
    return None if path and class_at(path) is not None else f"class {path or '(neither registry_name nor class given)'}"
