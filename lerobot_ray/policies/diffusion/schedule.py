"""How noise is added in training, and taken away in sampling: DDPM (Ho et al., 2020), DDIM (Song et al., 2021).

Everything follows from ᾱ, the share of the signal's variance left at each of the training's steps. What a sampling
step needs is a few numbers, computed once on the host, so that sampling never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lerobot_ray.policies.diffusion.config import DiffusionConfig

_NOTHING: Iterator[Tensor] = iter(())


def noise_shares(name: str, num_steps: int, *, start: float, end: float) -> Tensor:
    """β of every step (num_steps,), float32: the share of variance that becomes noise there."""
    if name == "linear":
        return torch.linspace(start, end, num_steps, dtype=torch.float32, device="cpu")
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, num_steps, dtype=torch.float32, device="cpu") ** 2
    if name == "sigmoid":
        return torch.linspace(-6, 6, num_steps, dtype=torch.float32, device="cpu").sigmoid() * (end - start) + start
    remaining = {"squaredcos_cap_v2": _squared_cosine, "laplace": _laplace}[name]
    shares = [
        min(1 - remaining((step + 1) / num_steps) / remaining(step / num_steps), 0.999) for step in range(num_steps)
    ]
    return torch.tensor(shares, dtype=torch.float32, device="cpu")


def _squared_cosine(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(time: float) -> float:
    log_ratio = -0.5 * math.copysign(1, 0.5 - time) * math.log(1 - 2 * abs(0.5 - time) + 1e-6)
    return math.sqrt(math.exp(log_ratio) / (1 + math.exp(log_ratio)))


@dataclass(frozen=True)
class SamplingStep:
    """One step of sampling. With x the noisy actions, x₀ and ε what the network makes of them:

    x ← clean·x₀ + current·x + noise·ε + fresh·(new noise).
    """

    timestep: int
    signal_scale: float
    """√ᾱ of this step."""
    noise_scale: float
    """√(1−ᾱ) of this step."""
    clean: float
    current: float
    noise: float
    fresh: float


def ddpm_steps(remaining: Tensor, num_steps: int) -> list[SamplingStep]:
    """Ancestral sampling: the mean of q(x_prev | x, x₀) and noise of its variance, none at the last step."""
    steps = []
    for timestep, now, before in _visited(remaining, num_steps):
        kept = now / before
        variance = ((1 - before) / (1 - now) * (1 - kept)).clamp(min=1e-20)
        steps.append(
            SamplingStep(
                timestep,
                signal_scale=float(now**0.5),
                noise_scale=float((1 - now) ** 0.5),
                clean=float(before**0.5 * (1 - kept) / (1 - now)),
                current=float(kept**0.5 * (1 - before) / (1 - now)),
                noise=0.0,
                fresh=float(variance**0.5) if timestep > 0 else 0.0,
            )
        )
    return steps


def ddim_steps(remaining: Tensor, num_steps: int) -> list[SamplingStep]:
    """Deterministic sampling: the predicted noise is put back at the level of the step before."""
    return [
        SamplingStep(
            timestep,
            signal_scale=float(now**0.5),
            noise_scale=float((1 - now) ** 0.5),
            clean=float(before**0.5),
            current=0.0,
            noise=float((1 - before) ** 0.5),
            fresh=0.0,
        )
        for timestep, now, before in _visited(remaining, num_steps)
    ]


def _visited(remaining: Tensor, num_steps: int) -> list[tuple[int, Tensor, Tensor]]:
    """(timestep, ᾱ there, ᾱ at the one after it in sampling), evenly spaced down to 0, where ᾱ before is 1."""
    stride = len(remaining) // num_steps
    visited = [stride * place for place in range(num_steps - 1, -1, -1)]
    one = torch.ones((), dtype=torch.float32, device="cpu")
    return [(step, remaining[step], remaining[step - stride] if step >= stride else one) for step in visited]


class NoiseSchedule(nn.Module):
    """The schedule a config asks for. Its table of ᾱ is on the policy's device and not in the weights file."""

    remaining: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.num_train_timesteps = config.num_train_timesteps
        self.predicts_noise = config.prediction_type == "epsilon"
        self.clip = config.clip_sample_range if config.clip_sample else None
        shares = noise_shares(
            config.beta_schedule, config.num_train_timesteps, start=config.beta_start, end=config.beta_end
        )
        remaining = (1 - shares).cumprod(0)
        plan = {"DDPM": ddpm_steps, "DDIM": ddim_steps}[config.noise_scheduler_type]
        self.steps = plan(remaining, config.num_inference_steps or config.num_train_timesteps)
        self._table = remaining.tolist()
        self.register_buffer("remaining", torch.tensor(self._table, dtype=torch.float32), persistent=False)

    def init_buffers(self) -> None:
        """Fills the table again, after `to_empty`."""
        self.remaining.copy_(torch.tensor(self._table, dtype=torch.float32, device="cpu"))

    def add_noise(self, actions: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Actions (B, T, A) as they look at `timesteps` (B,)."""
        remaining = self.remaining[timesteps, None, None]
        remaining = remaining.to(torch.promote_types(remaining.dtype, actions.dtype))
        return remaining.sqrt() * actions + (1 - remaining).sqrt() * noise

    @property
    def num_fresh(self) -> int:
        """Sampling steps that add noise."""
        return sum(step.fresh > 0 for step in self.steps)

    def denoise(self, x: Tensor, predicted: Tensor, step: SamplingStep, added: Iterator[Tensor] = _NOTHING) -> Tensor:
        """x one step cleaner, given the network's prediction.

        Where the step has noise, it is the next of `added`, or drawn from torch's generator when there is none.
        """
        if self.predicts_noise:
            clean, noise = (x - step.noise_scale * predicted) / step.signal_scale, predicted
        else:
            clean, noise = predicted, (x - step.signal_scale * predicted) / step.noise_scale
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        x = step.clean * clean + step.current * x + step.noise * noise
        if step.fresh <= 0:
            return x
        drawn = next(added, None)
        return x + step.fresh * (torch.randn_like(x) if drawn is None else drawn)
