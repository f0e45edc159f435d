"""Notices a loss that is no number, without making the device wait.

`stop` looks at each step's verdict one step later, when it has long arrived on the host: the step, its samples and the
parameters are named and the run ends before anything is saved. `skip` has to know before the optimizer moves, so it
waits for the device every step; that is its price.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributed.tensor import DTensor

from lerobot_ray.core.errors import LerobotRayError


class NonFiniteLoss(LerobotRayError):
    """A loss or gradient became infinite or not a number."""

    def __init__(self, step: int, stream_indices: list[int], parameters: list[str]) -> None:
        super().__init__(step, stream_indices, parameters)
        self.step, self.stream_indices, self.parameters = step, stream_indices, parameters

    def __str__(self) -> str:
        shown = ", ".join(self.parameters[:8]) + (" …" if len(self.parameters) > 8 else "")
        samples = ", ".join(map(str, self.stream_indices[:16])) + (" …" if len(self.stream_indices) > 16 else "")
        return (
            f"the loss of step {self.step} is not finite. Samples at stream indices {samples or 'unknown'} (the audit "
            f"names their episodes and frames); parameters that are not finite: {shown or 'none yet'}. "
            "Lower the learning rate, look at the samples, or go on with --on_nonfinite=skip."
        )


class FiniteWatch:
    """One verdict in flight: `submit` a step's, and learn of the one before."""

    def __init__(self, policy: torch.nn.Module) -> None:
        self._policy = policy
        self._pending: _Verdict | None = None

    def submit(self, step: int, verdict: torch.Tensor, stream_indices: list[torch.Tensor]) -> None:
        """Raise NonFiniteLoss for the step before, if it was not finite. `verdict`: 0-d bool, still being computed."""
        before = self._pending
        arrived = None
        is_finite = verdict.to("cpu", non_blocking=True)
        if verdict.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending = _Verdict(step, is_finite, arrived, stream_indices)
        self._judge(before)

    def settle(self) -> None:
        """Judge the last step too. Call before its result is kept."""
        pending, self._pending = self._pending, None
        self._judge(pending)

    def _judge(self, verdict: _Verdict | None) -> None:
        if verdict is None:
            return
        if verdict.arrived is not None:
            verdict.arrived.synchronize()  # a step old: the device is busy with the next one meanwhile
        if not bool(verdict.is_finite):
            indices = [int(q) for part in verdict.stream_indices for q in part]
            raise NonFiniteLoss(verdict.step, indices, nonfinite_parameters(self._policy))


@dataclass
class _Verdict:
    step: int
    is_finite: torch.Tensor
    arrived: torch.cuda.Event | None
    stream_indices: list[torch.Tensor]


def nonfinite_parameters(policy: torch.nn.Module) -> list[str]:
    """Names of the parameters that hold an infinity or a NaN, in themselves or their gradient: in this rank's part."""
    return [
        name
        for name, parameter in policy.named_parameters()
        if not all(_is_finite(tensor) for tensor in (parameter, parameter.grad) if tensor is not None)
    ]


def _is_finite(tensor: torch.Tensor) -> bool:
    # of the whole tensor it would be a collective, and a rank alone may come here
    mine = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return bool(torch.isfinite(mine).all())
