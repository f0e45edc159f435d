"""Inputs that `make_processor_goldens.py` gives to LeRobot and the tests give to this package. Arithmetic only, so that
both sides have the same numbers to the last bit; no package is imported that one of the two interpreters lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDENS = Path(__file__).resolve().parent / "goldens"

CAMERAS = ("observation.images.front", "observation.images.wrist")
IMAGE = (3, 8, 12)
INPUTS = {**dict.fromkeys(CAMERAS, ("VISUAL", IMAGE)), "observation.state": ("STATE", (4,))}
ENVIRONMENT = {"observation.environment_state": ("ENV", (3,))}
OUTPUTS = {"action": ("ACTION", (4,))}

PLAIN_TYPES = ("act", "diffusion", "vqbet", "tdmpc")
TOKENIZER_TYPES = ("multi_task_dit", "smolvla", "pi0", "pi05")
WINDOWS = {"act": None, "diffusion": 2, "vqbet": 5, "tdmpc": 6}
"""Observation steps in a batch of each type; None: no time axis."""

MODES = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
STATISTICS = ("mean", "std", "min", "max", "q01", "q10", "q50", "q90", "q99")
TEXTS = ["pick the red cube", "place the cube \n", "pick_the cube", "open 12 34"]


def numbers(*shape: int, salt: int = 0, scale: float = 1.0) -> np.ndarray:
    """Float32 numbers in [-scale, scale) without pattern enough to hide a wrong axis."""
    j = np.arange(int(np.prod(shape)), dtype=np.int64)
    return (((j * 7919 + salt * 104729) % 2003) / np.float64(1001.5) - 1).reshape(shape).astype(
        np.float32
    ) * np.float32(scale)


def stats() -> dict[str, dict[str, Any]]:
    """Statistics as a dataset has them: cameras (C, 1, 1), vectors (D,), scalars (1,); counts (1,)."""
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(CAMERAS, (3, 1, 1)),
        "observation.state": (4,),
        "observation.environment_state": (3,),
        "action": (4,),
        "next.reward": (1,),
        "timestamp": (1,),
        "index": (1,),
    }
    return {key: _stats_of(shape, salt) for salt, (key, shape) in enumerate(shapes.items())}


def _stats_of(shape: tuple[int, ...], salt: int) -> dict[str, Any]:
    centre = numbers(*shape, salt=salt)
    spread = {"min": -2.5, "q01": -2.0, "q10": -1.25, "q50": 0.125, "q90": 1.5, "q99": 2.25, "max": 3.0}
    found: dict[str, Any] = {"mean": centre, "std": np.abs(numbers(*shape, salt=salt + 50)) + np.float32(0.1)}
    found |= {name: centre + np.float32(offset) for name, offset in spread.items()}
    if shape == (4,):  # one constant dimension: the zero-range rule
        for name in spread:
            found[name][2] = np.float32(0.75)
        found["std"][2] = np.float32(0)
    return {**found, "count": np.array([72 + salt])}


def batch(kind: str, size: int = 2) -> dict[str, Any]:
    """A collated batch, uint8 frames already divided by 255: arrays, and `task` as a list of str."""
    window = () if (steps := WINDOWS.get(kind)) is None else (steps,)
    frames = {
        key: (np.abs(numbers(size, *window, *IMAGE, salt=i)) * 255).astype(np.uint8).astype(np.float32)
        / np.float32(255)
        for i, key in enumerate(CAMERAS)
    }
    return {
        **frames,
        "observation.state": numbers(size, *window, 4, salt=7, scale=3),
        "observation.environment_state": numbers(size, *window, 3, salt=8, scale=3),
        "action": numbers(size, 5, 4, salt=9, scale=4),
        "action_is_pad": np.arange(size * 5).reshape(size, 5) % 3 == 0,
        "next.reward": numbers(size, salt=10),
        "next.done": np.arange(size) % 2 == 1,
        "timestamp": np.arange(size, dtype=np.float32) / np.float32(10),
        "frame_index": np.arange(size),
        "episode_index": np.arange(size) // 2,
        "index": np.arange(size) + 40,
        "task_index": np.arange(size) % 2,
        "task": [TEXTS[i % len(TEXTS)] for i in range(size)],
        "note": ["dropped"] * size,
    }


def build_tokenizer(folder: Path) -> Path:
    """A word-level tokenizer of a dozen words, saved where AutoTokenizer finds it. Needs transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", "pick", "place", "the", "red", "cube", "open"]
    words += ["Task", "State", "Action", ":", ";", ",", *(str(i) for i in range(256)), "-"]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(folder)
    return folder
