"""Train a small adapter on a frozen pretrained policy."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot_ray.core.errors import ConfigError

WITH_INIT_TYPE = ("LORA", "MISS")


@dataclass(frozen=True)
class PeftConfig:
    """The adapter: its method, where it sits and how large it is. Null fields take PEFT's own defaults."""

    target_modules: list[str] | str | None = None
    """Modules that get an adapter: names, a regular expression, or all-linear; null: the policy's default."""
    full_training_modules: list[str] | None = None
    """Modules trained in full and saved beside the adapter."""
    method_type: str = "LORA"
    """Any method PEFT knows, by name."""
    init_type: str | None = None
    """How adapter weights start; for LORA and MISS."""
    r: int = 16
    """Rank."""
    lora_alpha: int | None = None
    """Scale of a LoRA's update; null: PEFT's default, 8."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"peft.r={self.r} must be at least 1.")
        if self.init_type is not None and self.method_type.upper() not in WITH_INIT_TYPE:
            raise ConfigError(
                f"peft.init_type={self.init_type} has no meaning for peft.method_type={self.method_type}, "
                f"only for {' and '.join(WITH_INIT_TYPE)}. Leave it out."
            )
