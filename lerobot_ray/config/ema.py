"""An exponential moving average of the weights, kept beside the trained ones."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class EmaConfig:
    """Decay at update n is 1 - (1 + t/inv_gamma)^-power with t = n - update_after_step - 1, between the two bounds."""

    enable: bool = False
    """Keep an average, save it with checkpoints and push it as `<repo_id>-ema`."""
    decay: float | None = None
    """A constant decay in place of the warm-up."""
    update_after_step: int = 0
    """Until this step the average is a copy."""
    inv_gamma: float = 1.0
    """Stretches the warm-up."""
    power: float = 0.75
    """Steepness of the warm-up."""
    min_decay: float = 0.0
    """Lower bound of the decay."""
    max_decay: float = 0.9999
    """Upper bound of the decay."""
    use_for_eval: bool = True
    """Play evaluation episodes with the averaged weights. The held-out loss is that of the trained ones."""

    def __post_init__(self) -> None:
        for name in ("decay", "min_decay", "max_decay"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"ema.{name}={value:g} is not between 0 and 1.")
        if self.min_decay > self.max_decay:
            raise ConfigError(f"ema.min_decay={self.min_decay:g} is above ema.max_decay={self.max_decay:g}.")
        for name in ("inv_gamma", "power"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"ema.{name}={getattr(self, name):g} must be more than 0.")
        if self.update_after_step < 0:
            raise ConfigError(f"ema.update_after_step={self.update_after_step} is negative.")
        defaults = {f.name: f.default for f in fields(self)}
        bounds = [name for name in ("min_decay", "max_decay") if getattr(self, name) != defaults[name]]
        if self.decay is not None and bounds:
            raise ConfigError(f"ema.decay fixes the decay, so ema.{bounds[0]} has no effect. Give one of the two.")
