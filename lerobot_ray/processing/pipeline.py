"""A pipeline: steps in order, what they are called, and how it is saved. Reading one back is `load`'s part.

preprocessor = Pipeline(steps, name=PREPROCESSOR_NAME)
batch = preprocessor(batch)              # a dict in, a dict out
action = postprocessor(action)           # a tensor in, a tensor out
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from safetensors.torch import save
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import Batch
from lerobot_ray.processing.step import name_of
from lerobot_ray.processing.transition import (
    Transition,
    action_to_transition,
    batch_to_transition,
    transition_to_batch,
)


class Pipeline:
    """Steps applied one after the other. Picklable, cheap to call, and it leaves its input as it was."""

    def __init__(self, steps: Sequence[Any], *, name: str) -> None:
        self.steps = list(steps)
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        pretrained: str | Path,
        name: str,
        *,
        revision: str | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Pipeline:
        """The pipeline saved in a folder or Hub repository; see `load.load_pipeline`."""
        from lerobot_ray.processing.load import load_pipeline

        return load_pipeline(pretrained, name, revision=revision, overrides=overrides)

    @overload
    def __call__(self, value: Tensor) -> Tensor: ...
    @overload
    def __call__(self, value: Mapping[str, Any]) -> Batch: ...

    def __call__(self, value: Tensor | Mapping[str, Any]) -> Tensor | Batch:
        """A batch for a batch, an action for an action. `transition.batch_to_transition` says which keys survive."""
        if isinstance(value, Tensor):
            return self.run(action_to_transition(value))["action"]
        if isinstance(value, Mapping):
            return transition_to_batch(self.run(batch_to_transition(value)))
        raise ProcessorError(
            f"{self.name} takes a batch (a dict) or an action (a tensor), not a {type(value).__name__}."
        )

    def run(self, transition: Transition) -> Transition:
        """The transition after all steps."""
        for step in self.steps:
            transition = step(transition)
        return transition

    def reset(self) -> None:
        """Forgets what steps remember of the running episode. Call it when an environment is reset."""
        for step in self.steps:
            if hasattr(step, "reset"):
                step.reset()

    def step(self, name: str) -> Any | None:
        """The first step called `name`, None without one."""
        return next((step for step in self.steps if name_of(step) == name), None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"Pipeline({self.name}: {', '.join(map(name_of, self.steps))})"

    def document(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return {"name": self.name, "steps": [self._entry(index, step) for index, step in enumerate(self.steps)]}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `<name>.json` and one safetensors file per step that has state, byte for byte as LeRobot does."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for index, step in enumerate(self.steps):
            if state := _state_of(step):
                tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
                # Not save_file: it makes files that only their owner can read, of no use on a shared disk.
                (folder / state_file_name(self.name, index, step)).write_bytes(save(tensors))
        (folder / f"{file_stem(self.name)}.json").write_text(json.dumps(self.document(), indent=2), encoding="utf-8")

    def _entry(self, index: int, step: Any) -> dict[str, Any]:
        registry_name = _registry_name(step)
        path = f"{type(step).__module__}.{type(step).__qualname__}"
        entry: dict[str, Any] = {"registry_name": registry_name} if registry_name else {"class": path}
        entry["config"] = step.get_config() if hasattr(step, "get_config") else {}
        if _state_of(step):
            entry["state_file"] = state_file_name(self.name, index, step)
        return entry


def file_stem(name: str) -> str:
    """A pipeline's name as a file name: lower case, everything but letters, digits and `_` replaced."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def state_file_name(name: str, index: int, step: Any) -> str:
    """`policy_preprocessor_step_3_normalizer_processor.safetensors`."""
    suffix = f"_{registry_name}" if (registry_name := _registry_name(step)) else ""
    return f"{file_stem(name)}_step_{index}{suffix}.safetensors"


def _registry_name(step: Any) -> str:
    return getattr(step, "registry_name", "") or getattr(step, "_registry_name", "") or ""


def _state_of(step: Any) -> dict[str, Tensor]:
    return step.state_dict() if hasattr(step, "state_dict") else {}
