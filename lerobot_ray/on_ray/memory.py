"""About how much memory a training process takes for what can be counted before anything is built."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lerobot_ray.config.parallel import replicas_and_shards
from lerobot_ray.core.layout import PRETRAINED_DIR, WEIGHTS_NAME
from lerobot_ray.on_ray.outline import outline
from lerobot_ray.on_ray.run_setup import RunSetup

BYTES_PER_PARAMETER = 4
STATES = {"adam": 2, "adamw": 2, "multi_adam": 2, "xvla-adamw": 2, "sgd": 1}
"""Numbers an optimizer keeps per parameter."""


def memory_line(setup: RunSetup, world_size: int) -> str:
    """In words for the banner; empty when the number of parameters cannot be known without loading the policy."""
    count = num_parameters(setup)
    if count is None:
        return ""
    config = setup.config
    copies = 2 + STATES.get(getattr(config.optimizer, "type", ""), 2) + int(config.ema.enable)
    _, shards = replicas_and_shards(config.parallelism, world_size)
    per_worker = count * BYTES_PER_PARAMETER * copies / shards
    what = "weights, gradients, optimizer" + (" and average" if config.ema.enable else "")
    of = f" in {shards} shards" if shards > 1 else ""
    return f"{per_worker / 1e9:.2g} GB per worker for {what} of {count / 1e6:.3g} M parameters{of}, and activations"


def num_parameters(setup: RunSetup) -> int | None:
    """Of the policy to be trained: from its weights if they are here, else from its shapes, nothing being allocated."""
    policy: Any = setup.config.policy
    folder = setup.resume_from / PRETRAINED_DIR if setup.resume_from else policy.pretrained_path
    if folder:
        count = _parameters_in_file(Path(folder) / WEIGHTS_NAME)
        if count is not None or setup.resume_from is None:  # a checkpoint in parts has no such file
            return count
    built = outline(setup)
    return None if built is None else sum(parameter.numel() for parameter in built.parameters())


def _parameters_in_file(path: Path) -> int | None:
    """Numbers in a safetensors file, from its header."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, ValueError):
        return None
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return sum(math.prod(shape) for shape in shapes)
