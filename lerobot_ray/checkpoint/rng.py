"""The random number generators of a process as LeRobot stores them: `rng_state.safetensors`.

Our own resume does not need it, every draw follows from (seed, stream index) or (seed, step, rank). LeRobot's does.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from lerobot_ray.checkpoint.tensors import write_tensors

RNG_NAME = "rng_state.safetensors"


def rng_state() -> dict[str, torch.Tensor]:
    """The state of Python's, numpy's (legacy) and torch's generators, now."""
    version, internal, _ = random.getstate()
    _, keys, position, has_gauss, gaussian = np.random.get_state(legacy=True)
    tensors = {
        "py_rng_version": torch.tensor([version]),
        "py_rng_state": torch.tensor(internal, dtype=torch.int64),
        "np_rng_state_values": torch.tensor(np.asarray(keys, dtype=np.int64)),
        "np_rng_state_index": torch.tensor([position]),
        "np_rng_has_gauss": torch.tensor([has_gauss]),
        "np_rng_cached_gaussian": torch.tensor([gaussian], dtype=torch.float32),
        "torch_rng_state": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["torch_cuda_rng_state"] = torch.cuda.get_rng_state()
    return tensors


def save_rng_state(folder: Path) -> None:
    """Write the state of this process's generators."""
    write_tensors(rng_state(), folder / RNG_NAME)


def load_rng_state(folder: Path) -> None:
    """Set the process's generators to what was saved."""
    tensors = load_file(folder / RNG_NAME)
    random.setstate((int(tensors["py_rng_version"]), tuple(tensors["py_rng_state"].tolist()), None))
    np.random.set_state(
        (
            "MT19937",
            tensors["np_rng_state_values"].numpy().astype(np.uint32),
            int(tensors["np_rng_state_index"]),
            int(tensors["np_rng_has_gauss"]),
            float(tensors["np_rng_cached_gaussian"]),
        )
    )
    torch.set_rng_state(tensors["torch_rng_state"])
    if "torch_cuda_rng_state" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["torch_cuda_rng_state"])
