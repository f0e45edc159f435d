"""Renames observations, so that a policy finds the cameras of another robot under the names it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import PAD_SUFFIX
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import COMPLEMENTARY, Transition


@register_step("rename_observations_processor")
class RenameObservations(Step):
    """Observations under their new names, with their padding masks; names the map does not hold stay."""

    def __init__(self, rename_map: Mapping[str, str] | None = None) -> None:
        self.rename_map = dict(rename_map or {})
        targets = list(self.rename_map.values())
        if twice := sorted({name for name in targets if targets.count(name) > 1}):
            raise ProcessorError(f"rename_map gives two keys the same name: {', '.join(twice)}.")

    def __call__(self, transition: Transition) -> Transition:
        if not self.rename_map:
            return transition
        masks = {old + PAD_SUFFIX: new + PAD_SUFFIX for old, new in self.rename_map.items()}
        return {
            **transition,
            "observation": renamed(transition.get("observation") or {}, self.rename_map) or None,
            COMPLEMENTARY: renamed(transition.get(COMPLEMENTARY) or {}, masks),
        }

    def get_config(self) -> dict[str, Any]:
        return {"rename_map": self.rename_map}


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same values under their new names, in the same order. A name that is taken raises ProcessorError."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = names.get(key, key)
        if name in result:
            raise ProcessorError(
                f"after renaming, two keys are called {name}; rename_map is {dict(names)}. Rename the other as well."
            )
        result[name] = value
    return result
