"""Actions as differences from the current state, and back. `link_relative` lets the pair share the state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import OBS_STATE
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import Transition


@register_step("relative_actions_processor")
class RelativeActions(Step):
    """action - state, except dimensions whose name contains an excluded word (a gripper's opening stays absolute)."""

    def __init__(
        self,
        enabled: bool = False,
        exclude_joints: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
    ) -> None:
        self.enabled = enabled
        self.exclude_joints = list(exclude_joints or [])
        self.action_names = list(action_names) if action_names is not None else None
        self.last_state: Tensor | None = None
        self._masks: dict[tuple[int, torch.device], Tensor | None] = {}

    def __call__(self, transition: Transition) -> Transition:
        state = (transition.get("observation") or {}).get(OBS_STATE)
        if state is not None:
            self.last_state = state
        action = transition.get("action")
        if not self.enabled or action is None or state is None:
            return transition
        return {**transition, "action": action - self.offset(action, state)}

    def get_config(self) -> dict[str, Any]:
        return {"enabled": self.enabled, "exclude_joints": self.exclude_joints, "action_names": self.action_names}

    def reset(self) -> None:
        self.last_state = None

    def offset(self, action: Tensor, state: Tensor) -> Tensor:
        """What is taken from (and given back to) `action`, (…, A): the state, zero where a dimension stays absolute."""
        size = action.shape[-1]
        if state.ndim == 3 and state.shape[1] == 1:
            state = state[:, 0]
        if state.shape[-1] < size or state.ndim > 2:
            raise ProcessorError(
                f"relative actions need one state of at least {size} values per sample, in the order of the action; "
                f"{OBS_STATE} has shape {list(state.shape)}."
            )
        offset = state[..., :size].to(device=action.device, dtype=action.dtype)
        if (relative := self._relative_mask(size, action.device)) is not None:
            offset = torch.where(relative, offset, torch.zeros_like(offset))
        return offset.unsqueeze(-2) if action.ndim == offset.ndim + 1 else offset

    def _relative_mask(self, size: int, device: torch.device) -> Tensor | None:
        """Which of `size` dimensions are relative, on `device`; None: all of them."""
        if (size, device) not in self._masks:
            words = [word.lower() for word in self.exclude_joints if word]
            names = [name.lower() for name in (self.action_names or [])][:size]
            relative = [not any(word in name for word in words) for name in names] + [True] * (size - len(names))
            self._masks[size, device] = None if all(relative) else torch.tensor(relative, device=device)
        return self._masks[size, device]


@register_step("absolute_actions_processor")
class AbsoluteActions(Step):
    """Adds the state that the preprocessor saw last, undoing `RelativeActions`."""

    def __init__(self, enabled: bool = False, relative_step: RelativeActions | None = None) -> None:
        self.enabled, self.relative_step = enabled, relative_step

    def __call__(self, transition: Transition) -> Transition:
        action = transition.get("action")
        if not self.enabled or action is None:
            return transition
        if self.relative_step is None:
            raise ProcessorError(
                "absolute_actions_processor is not linked to the preprocessor whose state it adds. Load both pipelines "
                "together, or call link_relative(preprocessor, postprocessor)."
            )
        if self.relative_step.last_state is None:
            raise ProcessorError("absolute_actions_processor has no state yet: run the preprocessor first.")
        return {**transition, "action": action + self.relative_step.offset(action, self.relative_step.last_state)}

    def get_config(self) -> dict[str, Any]:
        return {"enabled": self.enabled}


def link_relative(preprocessor: Iterable[Step], postprocessor: Iterable[Step]) -> None:
    """Lets every absolute-actions step of one pipeline read the state that the other's relative-actions step saw."""
    relative = next((step for step in preprocessor if isinstance(step, RelativeActions)), None)
    for step in postprocessor:
        if isinstance(step, AbsoluteActions):
            step.relative_step = relative
