"""Image transforms that change colours and sharpness, as LeRobot and torchvision v2 name and draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data import pixels
from lerobot_ray.data.augment_arguments import Parameters, Range, WithChance, set_range
from lerobot_ray.data.draws import Draws


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Brightness, contrast, saturation, hue by random amounts, in random order."""

    brightness: Range = None
    contrast: Range = None
    saturation: Range = None
    hue: Range = None

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            set_range(self, name, around=1.0, low=0.0)
        set_range(self, "hue", around=0.0, low=-0.5, high=0.5)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        ranges = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        drawn = [(name, draws.uniform(*limits)) for name, limits in ranges.items() if limits is not None]
        return {"steps": [drawn[i] for i in draws.shuffled(len(drawn))]}

    def apply(self, frames: Tensor, steps: Sequence[tuple[str, float]]) -> Tensor:
        for name, amount in steps:
            frames = getattr(pixels, name)(frames, amount)
        return frames


@dataclass(frozen=True, kw_only=True)
class SharpnessJitter:
    """LeRobot: sharpness by a random factor."""

    sharpness: Range

    def __post_init__(self) -> None:
        set_range(self, "sharpness", around=1.0, low=0.0)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"factor": draws.uniform(*self.sharpness)}  # type: ignore[misc]

    def apply(self, frames: Tensor, factor: float) -> Tensor:
        return pixels.sharpness(frames, factor)


@dataclass(frozen=True, kw_only=True)
class RandomAdjustSharpness(WithChance):
    sharpness_factor: float

    def apply(self, frames: Tensor) -> Tensor:
        return pixels.sharpness(frames, self.sharpness_factor)


@dataclass(frozen=True, kw_only=True)
class RandomAutocontrast(WithChance):
    def apply(self, frames: Tensor) -> Tensor:
        return pixels.autocontrast(frames)


@dataclass(frozen=True, kw_only=True)
class RandomEqualize(WithChance):
    def apply(self, frames: Tensor) -> Tensor:
        return pixels.equalize(frames)


@dataclass(frozen=True, kw_only=True)
class RandomInvert(WithChance):
    def apply(self, frames: Tensor) -> Tensor:
        return pixels.invert(frames)


@dataclass(frozen=True, kw_only=True)
class RandomPosterize(WithChance):
    bits: int

    def apply(self, frames: Tensor) -> Tensor:
        return pixels.posterize(frames, self.bits)


@dataclass(frozen=True, kw_only=True)
class RandomSolarize(WithChance):
    threshold: float

    def apply(self, frames: Tensor) -> Tensor:
        return pixels.solarize(frames, self.threshold)


@dataclass(frozen=True, kw_only=True)
class RandomGrayscale(WithChance):
    p: float = 0.1

    def apply(self, frames: Tensor) -> Tensor:
        return pixels.grayscale(frames)


@dataclass(frozen=True, kw_only=True)
class Grayscale:
    """Always grey. `num_output_channels` must be the frame's own, 3: a policy expects the channels of its dataset."""

    num_output_channels: int = 3

    def __post_init__(self) -> None:
        if self.num_output_channels != 3:
            raise ConfigError("Grayscale: num_output_channels must be 3, frames keep their channels.")

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {}

    def apply(self, frames: Tensor) -> Tensor:
        return pixels.grayscale(frames)


@dataclass(frozen=True, kw_only=True)
class RandomChannelPermutation:
    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"channels": draws.shuffled(channels)}

    def apply(self, frames: Tensor, channels: Sequence[int]) -> Tensor:
        return frames[..., list(channels), :, :]


@dataclass(frozen=True, kw_only=True)
class RandomPhotometricDistort(WithChance):
    """The distortion of SSD: each of brightness, contrast, saturation, hue and a channel swap with probability p."""

    brightness: Range = (0.875, 1.125)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-0.05, 0.05)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("brightness", "contrast", "saturation"):
            set_range(self, name, around=1.0, low=0.0)
        set_range(self, "hue", around=0.0, low=-0.5, high=0.5)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        order = ["brightness", "saturation", "hue"]
        order.insert(draws.integer(0, 1) * 2 + 1, "contrast")
        steps = [(name, draws.uniform(*getattr(self, name))) for name in order if draws.chance(self.p)]
        return {"steps": steps, "channels": draws.shuffled(channels) if draws.chance(self.p) else None}

    def apply(
        self, frames: Tensor, steps: Sequence[tuple[str, float]], channels: Sequence[int] | None = None
    ) -> Tensor:
        for name, amount in steps:
            frames = getattr(pixels, name)(frames, amount)
        return frames if channels is None else frames[..., list(channels), :, :]


@dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """Blur with a Gaussian of random width. `kernel_size` odd, one number or (across, down)."""

    kernel_size: int | Sequence[int]
    sigma: Range = (0.1, 2.0)

    def __post_init__(self) -> None:
        size: Any = self.kernel_size
        object.__setattr__(self, "kernel_size", (size, size) if isinstance(size, int) else tuple(size))
        if any(size < 1 or size % 2 == 0 for size in self.kernel_size):  # type: ignore[union-attr]
            raise ConfigError(f"GaussianBlur: kernel_size={size} must be odd.")
        set_range(self, "sigma", scalar=lambda value: (value, value), above=0.0)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"sigma": draws.uniform(*self.sigma)}  # type: ignore[misc]

    def apply(self, frames: Tensor, sigma: float) -> Tensor:
        return pixels.gaussian_blur(frames, self.kernel_size, (sigma, sigma))  # type: ignore[arg-type]
