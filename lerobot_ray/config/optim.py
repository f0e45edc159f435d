"""Optimizers and learning-rate schedules as data: LeRobot's names, fields and defaults. `engine/` builds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import draccus

from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig(draccus.ChoiceRegistry):
    """Which optimizer takes the steps, and how large they are."""

    lr: float
    """Learning rate before the schedule. Never rescaled with the number of workers."""
    weight_decay: float
    """Weight decay; decoupled for adamw, added to the gradient otherwise."""
    grad_clip_norm: float
    """Largest norm of the whole gradient; 0 turns clipping off."""

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "grad_clip_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optimizer.{name}={getattr(self, name):g} is negative.")

    @property
    def type(self) -> str:
        """The name this optimizer is registered under."""
        return self.get_choice_name(type(self))


@OptimizerConfig.register_subclass("adam")
@dataclass(frozen=True)
class AdamConfig(OptimizerConfig):
    """Adam."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator."""


@OptimizerConfig.register_subclass("adamw")
@dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """Adam with decoupled weight decay."""

    lr: float = 1e-3
    weight_decay: float = 1e-2
    grad_clip_norm: float = 10.0
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator."""


@OptimizerConfig.register_subclass("sgd")
@dataclass(frozen=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0
    momentum: float = 0.0
    """Share of the last step kept in the next."""
    dampening: float = 0.0
    """Share of the new gradient left out of the momentum."""
    nesterov: bool = False
    """Nesterov's variant of momentum."""


@OptimizerConfig.register_subclass("xvla-adamw")
@dataclass(frozen=True)
class XVLAAdamWConfig(OptimizerConfig):
    """AdamW with learning rates of their own for the parts of an X-VLA model."""

    lr: float = 1e-4
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator."""
    soft_prompt_lr_scale: float = 1.0
    """Learning rate of the soft prompts as a multiple of `lr`."""
    soft_prompt_warmup_lr_scale: float | None = None
    """The multiple the soft prompts' warm-up begins with; null: no warm-up of their own."""


@OptimizerConfig.register_subclass("multi_adam")
@dataclass(frozen=True)
class MultiAdamConfig(OptimizerConfig):
    """Several Adam optimizers, each over parameters the policy names."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0
    optimizer_groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name of the group -> its own lr, betas, eps, weight_decay."""


@dataclass(frozen=True)
class SchedulerConfig(draccus.ChoiceRegistry):
    """How the learning rate changes with the optimizer steps taken."""

    num_warmup_steps: int | None
    """Steps over which the learning rate rises from zero."""

    def __post_init__(self) -> None:
        if self.num_warmup_steps is not None and self.num_warmup_steps < 0:
            raise ConfigError(f"scheduler.num_warmup_steps={self.num_warmup_steps} is negative.")

    @property
    def type(self) -> str:
        """The name this schedule is registered under."""
        return self.get_choice_name(type(self))


@SchedulerConfig.register_subclass("diffuser")
@dataclass(frozen=True)
class DiffuserSchedulerConfig(SchedulerConfig):
    """The schedules of the diffusers library by name; `cosine` is built in."""

    num_warmup_steps: int | None = None
    name: str = "cosine"
    """Which one."""


@SchedulerConfig.register_subclass("vqbet")
@dataclass(frozen=True)
class VQBeTSchedulerConfig(SchedulerConfig):
    """Constant while the VQ-VAE trains, then warm-up and cosine."""

    num_warmup_steps: int
    num_vqvae_training_steps: int
    """Steps of the first phase."""
    num_cycles: float = 0.5
    """Cosine periods of the second phase; 0.5 falls to zero once."""


@SchedulerConfig.register_subclass("constant_with_warmup")
@dataclass(frozen=True)
class ConstantWithWarmupSchedulerConfig(SchedulerConfig):
    """Warm-up, then constant."""

    num_warmup_steps: int = 1000


@SchedulerConfig.register_subclass("cosine_annealing_with_warmup")
@dataclass(frozen=True)
class CosineAnnealingWithWarmupSchedulerConfig(SchedulerConfig):
    """Warm-up, then a cosine to zero at the last step."""

    num_warmup_steps: int


@SchedulerConfig.register_subclass("cosine_decay_with_warmup")
@dataclass(frozen=True)
class CosineDecayWithWarmupSchedulerConfig(SchedulerConfig):
    """Warm-up, a cosine from `peak_lr` to `decay_lr`, then constant; shortened to fit a shorter run."""

    num_warmup_steps: int
    num_decay_steps: int
    """Step at which `decay_lr` is reached."""
    peak_lr: float
    """Learning rate at the top; the schedule is the ratio to it."""
    decay_lr: float
    """Learning rate at the bottom."""
