"""LeRobot's own image transforms: what cameras, cables and lamps do to a picture.

LeRobot defines them for float frames and they leave uint8 frames as they are, which is what `lerobot-train` gives them.
Here they act on uint8 frames, with the strength that LeRobot gives them on float ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data import pixels
from lerobot_ray.data.augment_arguments import Parameters, Range, set_range
from lerobot_ray.data.draws import Draws, normal_pixels


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """LeRobot: sensor noise, new for every pixel, channel and frame. `std` in levels; a number means [0, number]."""

    std: Range = (5.0, 25.0)

    def __post_init__(self) -> None:
        set_range(self, "std", scalar=lambda value: (0.0, value), low=0.0)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"std": draws.uniform(*self.std), "key": draws.key()}  # type: ignore[misc]

    def apply(self, frames: Tensor, std: float, key: int) -> Tensor:
        return pixels.added(frames, normal_pixels(key, tuple(frames.shape), frames.device) * std)


@dataclass(frozen=True, kw_only=True)
class MotionBlur:
    """LeRobot: the mean along a short line in a random direction. Its length is one of the odd sizes in the range."""

    kernel_size: Range = (3, 11)

    def __post_init__(self) -> None:
        set_range(self, "kernel_size", scalar=lambda value: (value, value), low=1)
        if not self._sizes():
            raise ConfigError(f"MotionBlur: there is no odd kernel_size in {list(self.kernel_size)}.")  # type: ignore[arg-type]

    def _sizes(self) -> list[int]:
        low, high = self.kernel_size  # type: ignore[misc]
        return [size for size in range(math.ceil(low), math.floor(high) + 1) if size % 2]

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        sizes = self._sizes()
        return {"length": sizes[draws.integer(0, len(sizes) - 1)], "angle_degrees": draws.uniform(0.0, 360.0)}

    def apply(self, frames: Tensor, length: int, angle_degrees: float) -> Tensor:
        return pixels.motion_blur(frames, length, angle_degrees)


@dataclass(frozen=True, kw_only=True)
class JPEGCompression:
    """LeRobot: through JPEG and back. Always on the CPU: the slowest of all on frames that are on a GPU."""

    quality: Range = (15, 75)

    def __post_init__(self) -> None:
        set_range(self, "quality", scalar=lambda value: (value, value), low=1, high=100)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"quality": draws.integer(*map(int, self.quality))}  # type: ignore[arg-type]

    def apply(self, frames: Tensor, quality: int) -> Tensor:
        return pixels.jpeg(frames, quality)


@dataclass(frozen=True, kw_only=True)
class JPEG(JPEGCompression):
    """torchvision's name for the same."""

    quality: Range = (15, 75)


@dataclass(frozen=True, kw_only=True)
class GammaCorrection:
    """LeRobot: exposure. Drawn evenly on a logarithmic scale; a number g means [g, 1/g]."""

    gamma: Range = (0.5, 2.0)

    def __post_init__(self) -> None:
        set_range(self, "gamma", scalar=lambda value: (min(value, 1 / value), max(value, 1 / value)), above=0.0)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        low, high = self.gamma  # type: ignore[misc]
        return {"gamma": math.exp(draws.uniform(math.log(low), math.log(high)))}

    def apply(self, frames: Tensor, gamma: float) -> Tensor:
        return pixels.gamma(frames, gamma)


@dataclass(frozen=True, kw_only=True)
class PlanckianJitter:
    """LeRobot: the colour of the light, as a black body of a random temperature (Zini et al., 2022); green is kept."""

    temperature: Range = (3000, 15000)

    def __post_init__(self) -> None:
        set_range(self, "temperature", scalar=lambda value: (value, value), low=3000, high=15000)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"temperature": draws.integer(*map(int, self.temperature))}  # type: ignore[arg-type]

    def apply(self, frames: Tensor, temperature: int) -> Tensor:
        place, part = divmod((temperature - 3000) / 500, 1.0)
        below, above = (_PLANCKIAN[min(int(place) + step, len(_PLANCKIAN) - 1)] for step in (0, 1))
        red, blue = (a + (b - a) * part for a, b in zip(below, above, strict=True))
        return pixels.channel_gains(frames, (red, 1.0, blue))


_PLANCKIAN = (
    *((1.6736, 0.0032), (1.4810, 0.3926), (1.3538, 0.5748), (1.2616, 0.7077), (1.1907, 0.8133)),
    *((1.1335, 0.9008), (1.0862, 0.9747), (1.0460, 1.0387), (1.0115, 1.0940), (0.9810, 1.1423)),
    *((0.9543, 1.1852), (0.9302, 1.2233), (0.9086, 1.2573), (0.8891, 1.2879), (0.8713, 1.3155)),
    *((0.8552, 1.3406), (0.8402, 1.3633), (0.8262, 1.3840), (0.8134, 1.4029), (0.8015, 1.4203)),
    *((0.7905, 1.4367), (0.7802, 1.4513), (0.7704, 1.4651), (0.7615, 1.4779), (0.7528, 1.4900)),
)
"""Gains of red and blue at 3000 K, 3500 K, … 15000 K."""


@dataclass(frozen=True, kw_only=True)
class GaussianPatchBrightness:
    """LeRobot: uneven light, as soft round patches, brighter or darker. Sigmas are parts of the frame's size."""

    num_patches: Range = (1, 4)
    sigma_range: Range = (0.05, 0.25)
    factor_range: Range = (0.4, 1.6)

    def __post_init__(self) -> None:
        set_range(self, "num_patches", scalar=lambda value: (value, value), low=1)
        set_range(self, "sigma_range", above=0.0)
        set_range(self, "factor_range", low=0.0)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        count = draws.integer(*map(int, self.num_patches))  # type: ignore[arg-type]
        limits: Any = ((0.0, 1.0), (0.0, 1.0), self.sigma_range, self.factor_range)
        return {"patches": [tuple(draws.uniform(*limit) for limit in limits) for _ in range(count)]}

    def apply(self, frames: Tensor, patches: Sequence[Sequence[float]]) -> Tensor:
        """`patches`: (y, x, sigma, factor), all but the factor as parts of the frame's height and width."""
        height, width = frames.shape[-2:]
        gains = torch.ones(height, width, device=frames.device)
        for y, x, sigma, factor in patches:
            down, across = (
                torch.exp(-0.5 * ((torch.linspace(0.0, 1.0, size, device=frames.device) - middle) / sigma) ** 2)
                for size, middle in ((height, y), (width, x))
            )
            gains *= 1.0 + (factor - 1.0) * down[:, None] * across
        return pixels.pixel_gains(frames, gains)


@dataclass(frozen=True, kw_only=True)
class RandomShadow:
    """LeRobot: a soft upright band, darker or brighter by `opacity`, a third to two thirds of the width."""

    opacity: Range = (0.3, 0.6)

    def __post_init__(self) -> None:
        set_range(self, "opacity", scalar=lambda value: (value, value), low=0.0, high=1.0)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        band = draws.uniform(1 / 3, 2 / 3)
        opacity = draws.uniform(*self.opacity)  # type: ignore[misc]
        return {"opacity": -opacity if draws.chance(0.5) else opacity, "start": draws.uniform(), "width": band}

    def apply(self, frames: Tensor, opacity: float, start: float, width: float) -> Tensor:
        """`width` as part of the frame's, `start` as part of the room that leaves; a negative opacity brightens."""
        full = frames.shape[-1]
        band = max(1, round(width * full))
        left = round(start * (full - band))
        mask = torch.zeros(1, 1, full, device=frames.device)
        mask[..., left : left + band] = 1.0
        coarse = functional.avg_pool1d(mask, min(8, *frames.shape[-2:]))  # soft edges, eight pixels at a time
        soft = functional.interpolate(coarse, size=full, mode="linear", align_corners=False)[0, 0]
        return pixels.pixel_gains(frames, 1.0 - opacity * soft)


@dataclass(frozen=True, kw_only=True)
class CoarseDropout:
    """LeRobot: small rectangles hidden. `fill_value` from 0 (black) to 1 (white)."""

    max_holes: int = 8
    max_height_frac: float = 0.07
    max_width_frac: float = 0.07
    fill_value: float = 0.0

    def __post_init__(self) -> None:
        if self.max_holes < 1:
            raise ConfigError(f"CoarseDropout: max_holes={self.max_holes} must be at least 1.")
        for name in ("max_height_frac", "max_width_frac"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"CoarseDropout: {name}={getattr(self, name):g} is not in (0, 1].")

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        limits = ((0.0, self.max_height_frac), (0.0, self.max_width_frac), (0.0, 1.0), (0.0, 1.0))
        count = draws.integer(1, self.max_holes)
        return {"holes": [tuple(draws.uniform(*limit) for limit in limits) for _ in range(count)]}

    def apply(self, frames: Tensor, holes: Sequence[Sequence[float]]) -> Tensor:
        """`holes`: (height, width, top, left) as parts of the frame, and of the room that the hole leaves."""
        height, width = frames.shape[-2:]
        frames = frames.clone()
        for tall, wide, down, right in holes:
            rows, columns = max(1, round(tall * height)), max(1, round(wide * width))
            top, left = round(down * (height - rows)), round(right * (width - columns))
            frames[..., top : top + rows, left : left + columns] = round(self.fill_value * 255)
        return frames
