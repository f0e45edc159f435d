"""Learning-rate schedules from their configs, as factors on the optimizer's own rates.

`factor(s)` is for optimizer step number `s`; the loop advances the schedule once per step, never per micro-batch and
never per rank, and never rescales the rate with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lerobot_ray.config.optim import (
    ConstantWithWarmupSchedulerConfig,
    CosineAnnealingWithWarmupSchedulerConfig,
    CosineDecayWithWarmupSchedulerConfig,
    DiffuserSchedulerConfig,
    SchedulerConfig,
    VQBeTSchedulerConfig,
)
from lerobot_ray.core.errors import ConfigError

Factor = Callable[[int], float]
"""Optimizer step -> what the base rate is multiplied by."""


def build_schedules(
    config: Any, optimizers: Mapping[str, Optimizer], num_training_steps: int
) -> dict[str, LRScheduler]:
    """A schedule per optimizer under the optimizer's name; none of them without a config."""
    if config is None:
        return {}
    return {name: build_schedule(config, optimizer, num_training_steps) for name, optimizer in optimizers.items()}


def build_schedule(config: Any, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
    """The schedule of one optimizer. A config that is not ours (a plugin's) builds itself, as in LeRobot."""
    if not isinstance(config, SchedulerConfig) and hasattr(config, "build"):
        return config.build(optimizer, num_training_steps)
    if isinstance(config, DiffuserSchedulerConfig) and config.name not in _NAMED:
        return _from_diffusers(config, optimizer, num_training_steps)
    # The factor must be a plain function: of any other callable torch saves the attributes, which LeRobot's strict
    # reader takes for a schedule of another kind.
    return LambdaLR(optimizer, learning_rate_factor(config, num_training_steps))


def learning_rate_factor(config: SchedulerConfig, num_training_steps: int) -> Factor:
    """The factor by itself, for tables and plots. `num_training_steps` is the run's `steps`."""
    total = num_training_steps
    if isinstance(config, DiffuserSchedulerConfig):
        return _NAMED[config.name](_warmup_of(config), total)
    if isinstance(config, ConstantWithWarmupSchedulerConfig):
        return _constant_with_warmup(_warmup_of(config), total)
    if isinstance(config, CosineAnnealingWithWarmupSchedulerConfig):
        return _cosine(_warmup_of(config), total)
    if isinstance(config, VQBeTSchedulerConfig):
        return _vqbet(_warmup_of(config), config.num_vqvae_training_steps, config.num_cycles, total)
    if isinstance(config, CosineDecayWithWarmupSchedulerConfig):
        return _cosine_decay(config, total)
    raise ConfigError(f"scheduler.type={config.type} has no builder here.")


def _warmup_of(config: SchedulerConfig) -> int:
    if config.num_warmup_steps is None:
        if isinstance(config, DiffuserSchedulerConfig) and config.name == "constant":
            return 0
        raise ConfigError("scheduler.num_warmup_steps is not set. Give a number; 0 starts at the full learning rate.")
    return config.num_warmup_steps


def _constant(warmup: int, total: int) -> Factor:
    return lambda step: 1.0


def _constant_with_warmup(warmup: int, total: int) -> Factor:
    return lambda step: step / warmup if step < warmup else 1.0


def _linear(warmup: int, total: int) -> Factor:
    def factor(step: int) -> float:
        return step / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup))

    return factor


def _cosine(warmup: int, total: int, cycles: float = 0.5) -> Factor:
    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        progress = (step - warmup) / max(1, total - warmup)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)))

    return factor


def _vqbet(warmup: int, first_phase: int, cycles: float, total: int) -> Factor:
    """1 while the VQ-VAE trains; then warm-up and cosine, whose end is counted from the start of the second phase."""
    second_phase = _cosine(warmup, total, cycles)
    return lambda step: 1.0 if step < first_phase else second_phase(step - first_phase)


def _cosine_decay(config: CosineDecayWithWarmupSchedulerConfig, total: int) -> Factor:
    """The cosine counts from step 0, not from the end of warm-up, so the factor drops a little when warm-up ends."""
    warmup, decay = _warmup_of(config), config.num_decay_steps
    if total < decay:
        warmup, decay = int(warmup * (total / decay)), total
    floor = config.decay_lr / config.peak_lr

    def factor(step: int) -> float:
        if step < warmup:
            first = 1 / (warmup + 1)
            return first if step <= 0 else (first - 1) * (1 - step / warmup) + 1
        cosine = 0.5 * (1 + math.cos(math.pi * min(step, decay) / decay))
        return (1 - floor) * cosine + floor

    return factor


_NAMED: dict[str, Callable[[int, int], Factor]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
}
"""The schedules of the diffusers library that are built in."""


def _from_diffusers(config: DiffuserSchedulerConfig, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
    try:
        from diffusers.optimization import SchedulerType, get_scheduler
    except ImportError:
        raise ConfigError(
            f"scheduler.name={config.name} is not one of {', '.join(_NAMED)}. If the diffusers library has it: "
            "pip install diffusers."
        ) from None
    try:
        return get_scheduler(
            SchedulerType(config.name),
            optimizer=optimizer,
            num_warmup_steps=config.num_warmup_steps,
            num_training_steps=num_training_steps,
        )
    except ValueError as error:
        raise ConfigError(f"scheduler.name={config.name}: {error}.") from None
