"""Weights and inputs made by arithmetic, so that LeRobot and this package get the same ones without storing them.

Used by the tests and, under LeRobot's interpreter, by `make_policy_goldens.py`: imports torch and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

AS_BUILT = ("pos_grid", "vae_encoder_pos_enc")


def fill(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose tensors are sines of their position: key number i, place j, `sin(0.37 j + i)`."""
    filled = {}
    for number, key in enumerate(sorted(state_dict)):
        tensor = state_dict[key]
        if key.endswith(AS_BUILT) or not tensor.is_floating_point():
            filled[key] = tensor.clone()
            continue
        value = (0.37 * torch.arange(tensor.numel(), dtype=torch.float64) + number).sin()
        if key.endswith("running_var"):
            value = 1 + 0.1 * value.abs()
        elif key.endswith("running_mean"):
            value = 0.01 * value
        elif tensor.dim() == 1 and key.endswith("weight"):
            value = 1 + 0.05 * value
        else:
            value = 0.05 * value
        filled[key] = value.reshape(tensor.shape).to(tensor.dtype)
    return filled


def refill(policy: torch.nn.Module) -> None:
    """Gives the policy the weights of `fill`, and batch norms that have counted nothing."""
    filled = fill(policy.state_dict())
    counters = {key: torch.zeros_like(value) for key, value in filled.items() if key.endswith("num_batches_tracked")}
    policy.load_state_dict(filled | counters)


def wave(shape: tuple[int, ...], frequency: float, phase: float) -> Tensor:
    """`sin(frequency j + phase)` over the flat place j, in torch's default precision."""
    count = torch.Size(shape).numel()
    return (
        (frequency * torch.arange(count, dtype=torch.float64) + phase)
        .sin()
        .reshape(shape)
        .to(torch.get_default_dtype())
    )


def last_padded(batch_size: int, steps: int, padded: int = 3) -> Tensor:
    """Mask (B, T): every second sample's last `padded` steps are padding."""
    mask = torch.zeros(batch_size, steps, dtype=torch.bool)
    mask[1::2, steps - padded :] = True
    return mask
