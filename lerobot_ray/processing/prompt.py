"""Rewrites the task text into what a vision-language policy was trained to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import OBS_STATE, TASK
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import COMPLEMENTARY, Transition

STATE_BINS = 256


class _NewLine(Step):
    """The task text ends with a newline, which tells the language model that it is complete."""

    def __call__(self, transition: Transition) -> Transition:
        complementary = transition.get(COMPLEMENTARY) or {}
        task = complementary.get(TASK)
        if isinstance(task, str):
            ended: Any = _with_newline(task)
        elif isinstance(task, (list, tuple)) and all(isinstance(text, str) for text in task):
            ended = [_with_newline(text) for text in task]
        else:
            return transition
        return {**transition, COMPLEMENTARY: {**complementary, TASK: ended}}


def _with_newline(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


@register_step("smolvla_new_line_processor")
class SmolVLANewLine(_NewLine):
    """For SmolVLA."""


@register_step("pi0_new_line_processor")
class Pi0NewLine(_NewLine):
    """For pi0."""


@register_step("pi05_prepare_state_tokenizer_processor_step")
class Pi05Prompt(Step):
    """Task and normalised state as pi05's prompt, `Task: …, State: 12 255 …;\\nAction: `. The text is made on the host,
    so this step waits for the device."""

    def __init__(self, max_state_dim: int = 32, task_key: str = TASK) -> None:
        self.max_state_dim, self.task_key = max_state_dim, task_key

    def __call__(self, transition: Transition) -> Transition:
        complementary = transition.get(COMPLEMENTARY) or {}
        state = (transition.get("observation") or {}).get(OBS_STATE)
        if not isinstance(state, Tensor) or state.ndim not in (1, 2):
            shape = list(state.shape) if isinstance(state, Tensor) else "absent"
            raise ProcessorError(f"pi05's prompt needs {OBS_STATE} of shape (B, D); it is {shape}.")
        states = state_bins(np.atleast_2d(state.detach().float().cpu().numpy()))
        task = complementary.get(self.task_key)
        tasks = [task] * len(states) if isinstance(task, str) else task
        if not isinstance(tasks, (list, tuple)) or len(tasks) != len(states):
            raise ProcessorError(
                f"pi05's prompt needs one task text per sample, {len(states)} of them; found {task!r}."
            )
        prompts = [pi05_prompt(text, bins) for text, bins in zip(tasks, states, strict=True)]
        return {**transition, COMPLEMENTARY: {**complementary, self.task_key: prompts}}


def state_bins(state: np.ndarray) -> np.ndarray:
    """Which of 256 equal bins over [-1, 1] each value falls into; below is -1, above (and NaN) is 255."""
    edges = np.linspace(-1, 1, STATE_BINS + 1)[:-1]
    return np.digitize(state, bins=edges) - 1


def pi05_prompt(task: str, bins: Sequence[int] | np.ndarray) -> str:
    """The prompt of one sample."""
    cleaned = task.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {cleaned}, State: {' '.join(str(int(b)) for b in bins)};\nAction: "
