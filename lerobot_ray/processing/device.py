"""Moves a transition's tensors to a device, and its floating-point ones to another precision when asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lerobot_ray.core.errors import ProcessorError, nearest
from lerobot_ray.processing.step import Step, register_step
from lerobot_ray.processing.transition import COMPLEMENTARY, Transition

FLOAT_DTYPES = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "half": torch.float16,
    "float": torch.float32,
    "double": torch.float64,
}


@register_step("device_processor")
class ToDevice(Step):
    """Every tensor on `device`; one that is on a GPU already stays on that GPU when `device` is a GPU.

    A file names the kind of device only (`cuda`, not `cuda:1`): which one it is belongs to the process, not the policy.
    """

    def __init__(self, device: str | torch.device = "cpu", float_dtype: str | None = None) -> None:
        self.device = usable_device(device)
        if float_dtype is not None and float_dtype not in FLOAT_DTYPES:
            near = nearest(float_dtype, FLOAT_DTYPES)
            hint = f" Did you mean {near}?" if near else ""
            raise ProcessorError(
                f"device_processor: float_dtype={float_dtype!r} is not one of {', '.join(FLOAT_DTYPES)}.{hint}"
            )
        self.float_dtype = float_dtype

    def __call__(self, transition: Transition) -> Transition:
        result = {
            key: self._moved(value) if key in ("action", "reward", "done", "truncated") else value
            for key, value in transition.items()
        }
        for part in ("observation", COMPLEMENTARY):
            if values := transition.get(part):
                result[part] = {key: self._moved(value) for key, value in values.items()}
        return result

    def get_config(self) -> dict[str, Any]:
        return {"device": self.device.type, "float_dtype": self.float_dtype}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        stays = value.device.type == self.device.type == "cuda"
        device = value.device if stays else self.device
        dtype = value.dtype
        if self.float_dtype is not None and dtype.is_floating_point:
            dtype = FLOAT_DTYPES[self.float_dtype]
        if device.type == "mps" and dtype is torch.float64:  # Metal has no double precision
            dtype = torch.float32
        return value.to(device=device, dtype=dtype, non_blocking=device.type == "cuda")


def best_device() -> str:
    """The kind of device a policy without one in its config runs on."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def usable_device(device: str | torch.device) -> torch.device:
    """The torch device, or a ProcessorError when this machine does not have it."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ProcessorError(f"device_processor: {device!r} is not the name of a device torch knows.") from None
    missing = (found.type == "cuda" and not torch.cuda.is_available()) or (
        found.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ProcessorError(
            f"device_processor: device {str(device)!r} is not available here. Load the pipeline with "
            'overrides={"device_processor": {"device": "cpu"}}, or set --policy.device.'
        )
    return found
