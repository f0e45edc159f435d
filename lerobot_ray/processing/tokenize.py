"""Turns the task text into tokens, for policies that read it.

Tasks repeat from batch to batch, so each text is tokenised once and its tokens are kept; only new texts reach the
tokenizer, all of a batch in one call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import TASK
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import COMPLEMENTARY, Transition, first_tensor_device

TOKENS = "observation.language.tokens"
ATTENTION_MASK = "observation.language.attention_mask"

KEPT_TEXTS = 4096
"""Texts whose tokens are kept. Prompts that hold the state hardly repeat, so the store is emptied when it is full."""


@register_step("tokenizer_processor")
class Tokenize(Step):
    """`task` as `observation.language.tokens` (int64) and `.attention_mask` (bool), both (B, L), beside the data."""

    def __init__(
        self,
        tokenizer_name: str | None = None,
        tokenizer: Any = None,
        max_length: int = 512,
        task_key: str = TASK,
        padding_side: str = "right",
        padding: str | bool = "max_length",
        truncation: bool = True,
    ) -> None:
        if tokenizer is None and tokenizer_name is None:
            raise ProcessorError("tokenizer_processor needs a tokenizer_name or a tokenizer.")
        self.tokenizer_name = tokenizer_name
        self.tokenizer = tokenizer if tokenizer is not None else load_tokenizer(str(tokenizer_name))
        self.max_length, self.task_key = max_length, task_key
        self.padding_side, self.padding, self.truncation = padding_side, padding, truncation
        self._known: dict[str, list[int]] = {}

    def __call__(self, transition: Transition) -> Transition:
        rows = self._token_rows(self._texts(transition))
        tokens, mask = self._padded(rows)
        device = first_tensor_device(transition)
        if device is not None and device.type != "cpu":
            tokens, mask = (t.to(device, non_blocking=device.type == "cuda") for t in (tokens, mask))
        observation = {**(transition.get("observation") or {}), TOKENS: tokens, ATTENTION_MASK: mask}
        return {**transition, "observation": observation}

    def get_config(self) -> dict[str, Any]:
        config = {
            "max_length": self.max_length,
            "task_key": self.task_key,
            "padding_side": self.padding_side,
            "padding": self.padding,
            "truncation": self.truncation,
        }
        return {**config, "tokenizer_name": self.tokenizer_name} if self.tokenizer_name is not None else config

    def _texts(self, transition: Transition) -> list[str]:
        task = (transition.get(COMPLEMENTARY) or {}).get(self.task_key)
        texts = [task] if isinstance(task, str) else task
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise ProcessorError(
                f"tokenizer_processor needs batch[{self.task_key!r}], a text or a list of texts; found {task!r}. "
                "Does the dataset have tasks?"
            )
        return list(texts)

    def _token_rows(self, texts: list[str]) -> list[list[int]]:
        known = self._known
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            if len(known) + len(new) > KEPT_TEXTS:
                known = self._known = {text: known[text] for text in texts if text in known}
            longest = {"max_length": self.max_length} if self.truncation else {}
            encoded = self.tokenizer(new, truncation=self.truncation, padding=False, **longest)
            known.update(zip(new, encoded["input_ids"], strict=True))
        return [known[text] for text in texts]

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(B, L) tokens and mask: L is `max_length`, or the longest row's length when padding to the longest."""
        longest = max(len(row) for row in rows)
        length = self.max_length if self.padding == "max_length" else longest
        pads = self.padding in ("max_length", "longest", True)
        if longest > length or (not pads and any(len(row) != longest for row in rows)):
            raise ProcessorError(
                f"tokenizer_processor: texts of {min(map(len, rows))} to {longest} tokens do not make one tensor with "
                f"padding={self.padding!r}, truncation={self.truncation}, max_length={self.max_length}. "
                "Set truncation=true and padding to max_length or longest."
            )
        pad = self.tokenizer.pad_token_id
        if pad is None and any(len(row) != length for row in rows):
            raise ProcessorError(
                f"tokenizer {self.tokenizer_name} has no padding token. Set its pad_token and save it."
            )
        left = self.padding_side == "left"
        tokens = torch.full((len(rows), length), pad or 0, dtype=torch.int64)
        mask = torch.zeros((len(rows), length), dtype=torch.bool)
        for i, row in enumerate(rows):
            place = slice(length - len(row), length) if left else slice(0, len(row))
            tokens[i, place] = torch.tensor(row, dtype=torch.int64)
            mask[i, place] = True
        return tokens, mask


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a folder or a Hub repository; a ProcessorError says what it takes to have it."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ProcessorError(
            f"the tokenizer {name} needs the transformers package: pip install transformers."
        ) from None
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ProcessorError(
            f"the tokenizer {name} cannot be loaded: {reason} Download it on a machine with network access (gated ones "
            'after accepting their terms), or give a folder with overrides={"tokenizer_processor": '
            '{"tokenizer_name": "<folder>"}}.'
        ) from None
