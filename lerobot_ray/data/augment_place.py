"""Image transforms that change where things are, or hide them, as torchvision v2 names and draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data import warps
from lerobot_ray.data.augment_arguments import Parameters, Range, WithChance, check_interpolation, set_range, set_size
from lerobot_ray.data.draws import Draws, uniform_pixels


@dataclass(frozen=True, kw_only=True)
class RandomAffine:
    """Rotate, move, scale, shear. `degrees` and `shear` in degrees, `translate` as parts of width and height."""

    degrees: Range
    translate: Sequence[float] | None = None
    scale: Sequence[float] | None = None
    shear: Range = None
    interpolation: str = "nearest"
    fill: float | Sequence[float] = 0
    center: Sequence[float] | None = None

    def __post_init__(self) -> None:
        set_range(self, "degrees", around=0.0)
        check_interpolation(self)
        if self.translate is not None and not all(0.0 <= part <= 1.0 for part in self.translate):
            raise ConfigError(f"RandomAffine: translate={list(self.translate)} are parts of the frame, from 0 to 1.")
        if self.scale is not None and not all(part > 0 for part in self.scale):
            raise ConfigError(f"RandomAffine: scale={list(self.scale)} must be positive.")
        if self.shear is not None:
            shear = [-self.shear, self.shear] if isinstance(self.shear, int | float) else list(self.shear)
            object.__setattr__(self, "shear", shear if len(shear) == 4 else [*shear, 0.0, 0.0])

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        move, shear = self.translate or (0.0, 0.0), self.shear
        return {
            "angle": draws.uniform(*self.degrees),  # type: ignore[misc]
            "translate": tuple(
                round(draws.uniform(-part * size, part * size))
                for part, size in zip(move, (width, height), strict=True)
            ),
            "scale": draws.uniform(*self.scale) if self.scale else 1.0,
            "shear": (draws.uniform(*shear[:2]), draws.uniform(*shear[2:])) if shear else (0.0, 0.0),  # type: ignore[index]
        }

    def apply(self, frames: Tensor, **placed: Any) -> Tensor:
        return warps.affine(frames, **placed, center=self.center, interpolation=self.interpolation, fill=self.fill)


@dataclass(frozen=True, kw_only=True)
class RandomRotation:
    """Rotate, `degrees` counter-clockwise."""

    degrees: Range
    interpolation: str = "nearest"
    expand: bool = False
    center: Sequence[float] | None = None
    fill: float | Sequence[float] = 0

    def __post_init__(self) -> None:
        set_range(self, "degrees", around=0.0)
        check_interpolation(self)
        if self.expand:
            raise ConfigError("RandomRotation: expand changes the size of the frame, and a batch has one size.")

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"angle": draws.uniform(*self.degrees)}  # type: ignore[misc]

    def apply(self, frames: Tensor, angle: float) -> Tensor:
        return warps.affine(frames, angle=-angle, center=self.center, interpolation=self.interpolation, fill=self.fill)


@dataclass(frozen=True, kw_only=True)
class RandomPerspective(WithChance):
    """Move each corner inwards by up to half of `distortion_scale` of the frame."""

    distortion_scale: float = 0.5
    interpolation: str = "bilinear"
    fill: float | Sequence[float] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interpolation(self)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters | None:
        if not draws.chance(self.p):
            return None
        x, y = (int(self.distortion_scale * (size // 2)) for size in (width, height))
        right, bottom = width - 1, height - 1
        corners = ((0, 0), (right - x, 0), (right - x, bottom - y), (0, bottom - y))
        return {"end_points": [(draws.integer(a, a + x), draws.integer(b, b + y)) for a, b in corners]}

    def apply(self, frames: Tensor, end_points: Sequence[Sequence[float]]) -> Tensor:
        return warps.perspective(frames, end_points, interpolation=self.interpolation, fill=self.fill)


@dataclass(frozen=True, kw_only=True)
class RandomHorizontalFlip(WithChance):
    """Left and right exchanged. The actions are not: of use only where left and right do not matter."""

    def apply(self, frames: Tensor) -> Tensor:
        return frames.flip(-1)


@dataclass(frozen=True, kw_only=True)
class RandomVerticalFlip(WithChance):
    def apply(self, frames: Tensor) -> Tensor:
        return frames.flip(-2)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A random part, resized to `size`, which must be the frame's own (height, width)."""

    size: int | Sequence[int]
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        set_size(self)
        check_interpolation(self)

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        for _ in range(10):
            area = height * width * draws.uniform(*self.scale)
            aspect = math.exp(draws.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < tall <= height:
                top, left = draws.integer(0, height - tall), draws.integer(0, width - wide)
                return {"top": top, "left": left, "height": tall, "width": wide}
        # No luck in ten tries: the largest centred part of an allowed shape.
        tall, wide = height, width
        if width / height < self.ratio[0]:
            tall = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            wide = round(height * self.ratio[1])
        return {"top": (height - tall) // 2, "left": (width - wide) // 2, "height": tall, "width": wide}

    def apply(self, frames: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        return warps.resized_crop(frames, top, left, height, width, self.size, self.interpolation)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Pad, then cut out `size`, which must be the frame's own (height, width): a random shift."""

    size: int | Sequence[int]
    padding: int | Sequence[int] | None = None
    fill: float = 0
    padding_mode: str = "constant"

    def __post_init__(self) -> None:
        set_size(self)
        sides: Any = self.padding or 0
        sides = [sides] * 4 if isinstance(sides, int) else list(sides)
        if len(sides) == 2:
            sides = [sides[0], sides[1], sides[0], sides[1]]
        object.__setattr__(self, "padding", sides)  # left, top, right, bottom
        if self.padding_mode not in ("constant", "edge", "reflect"):
            raise ConfigError(f"RandomCrop: padding_mode={self.padding_mode!r} is none of constant, edge, reflect.")

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        (tall, wide), (left, top, right, bottom) = self.size, self.padding  # type: ignore[misc]
        if tall > height + top + bottom or wide > width + left + right:
            raise ConfigError(f"RandomCrop: size {tall}x{wide} is more than the padded frame holds.")
        return {
            "top": draws.integer(0, height + top + bottom - tall),
            "left": draws.integer(0, width + left + right - wide),
        }

    def apply(self, frames: Tensor, top: int, left: int) -> Tensor:
        (tall, wide), sides = self.size, self.padding  # type: ignore[misc]
        around = (sides[0], sides[2], sides[1], sides[3])  # type: ignore[index]
        wide_frames = warps.padded(frames, around, self.fill, self.padding_mode)
        return wide_frames[..., top : top + tall, left : left + wide]


@dataclass(frozen=True, kw_only=True)
class RandomErasing(WithChance):
    """One rectangle overwritten with `value` (0 to 255, one or per channel, or "random" for noise)."""

    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    value: float | Sequence[float] | str = 0.0

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters | None:
        if not draws.chance(self.p):
            return None
        for _ in range(10):
            area = height * width * draws.uniform(*self.scale)
            aspect = math.exp(draws.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if tall < height and wide < width:
                top, left = draws.integer(0, height - tall), draws.integer(0, width - wide)
                return {"top": top, "left": left, "height": tall, "width": wide, "key": draws.key()}
        return None

    def apply(self, frames: Tensor, top: int, left: int, height: int, width: int, key: int = 0) -> Tensor:
        if self.value == "random":
            patch = uniform_pixels(key, (frames.shape[-3], height, width), frames.device)
        else:
            patch = torch.tensor(self.value, dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
        frames = frames.clone()
        frames[..., top : top + height, left : left + width] = patch.to(torch.uint8)
        return frames
