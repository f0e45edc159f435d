"""What all image transforms share: the protocol, and the ways their arguments may be written in a config file.

A transform is a frozen dataclass whose fields are its arguments. It draws its parameters from a `Draws` and applies
them to the frames of one window; the operations themselves are in `pixels` and `warps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.draws import Draws

Range = float | Sequence[float] | None
"""As written: one number or a pair. After construction: a pair (low, high), or None where that is allowed."""
Parameters = dict[str, Any]


class Transform(Protocol):
    """Draws once per window and camera, then changes all its frames alike."""

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters | None:
        """What to do this time; None for nothing."""
        ...

    @property
    def apply(self) -> Callable[..., Tensor]:
        """(frames, **parameters): uint8 (T, C, H, W) -> uint8 of the same shape; the input is left as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class WithChance:
    """Happens with probability p; nothing else is drawn."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ConfigError(f"{type(self).__name__}: p={self.p:g} is not a probability.")

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters | None:
        return {} if draws.chance(self.p) else None


def set_range(
    transform: Any,
    name: str,
    *,
    around: float | None = None,
    scalar: Callable[[float], tuple[float, float]] | None = None,
    low: float = float("-inf"),
    high: float = float("inf"),
    above: float = float("-inf"),
) -> None:
    """Make the field a pair (low, high). One number means around ± number, or what `scalar` makes of it."""
    value = getattr(transform, name)
    if value is None:
        return
    if isinstance(value, int | float):
        if around is not None:
            pair = (max(around - abs(value), low), around + abs(value))
        elif scalar is not None and value > above:
            pair = scalar(value)
        else:
            pair = (value, value)
    else:
        pair = tuple(value)
    is_pair = len(pair) == 2 and all(isinstance(end, int | float) for end in pair)
    if not is_pair or not low <= pair[0] <= pair[1] <= high or pair[0] <= above:
        limits = [f"above {above:g}"] if above > float("-inf") else []
        limits += [f"from {low:g}"] if low > float("-inf") else []
        limits += [f"up to {high:g}"] if high < float("inf") else []
        raise ConfigError(
            f"{type(transform).__name__}: {name}={value} must be a number or a pair [low, high]"
            + (f", {' '.join(limits)}." if limits else ".")
        )
    object.__setattr__(transform, name, pair)


def set_size(transform: Any) -> None:
    """Make `size` a pair (height, width); one number means a square."""
    size = transform.size
    pair = (size, size) if isinstance(size, int) else tuple(size) * (2 if len(size) == 1 else 1)
    if len(pair) != 2 or not all(isinstance(part, int) and part > 0 for part in pair):
        raise ConfigError(f"{type(transform).__name__}: size={size} must be a number or [height, width].")
    object.__setattr__(transform, "size", pair)


def check_interpolation(transform: Any) -> None:
    if transform.interpolation not in ("nearest", "bilinear"):
        raise ConfigError(
            f"{type(transform).__name__}: interpolation={transform.interpolation!r} is neither nearest nor bilinear."
        )
