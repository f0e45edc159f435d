"""Geometric operations on uint8 frames (..., C, H, W), as torchvision defines them, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def affine(
    frames: Tensor,
    *,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    center: Sequence[float] | None = None,
    interpolation: str = "nearest",
    fill: float | Sequence[float] = 0,
) -> Tensor:
    """Rotate (degrees, clockwise), shear, scale about the centre, then move by `translate` pixels (right, down)."""
    height, width = frames.shape[-2:]
    middle = (0.0, 0.0) if center is None else (center[0] - width / 2, center[1] - height / 2)
    matrix = _inverse_affine(middle, angle, translate, scale, shear)
    columns = torch.arange(width, dtype=torch.float32, device=frames.device) - (width - 1) / 2
    rows = torch.arange(height, dtype=torch.float32, device=frames.device) - (height - 1) / 2
    theta = torch.tensor(matrix, dtype=torch.float32, device=frames.device).reshape(2, 3)
    theta = theta / torch.tensor([[width / 2], [height / 2]], device=frames.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ theta.T
    return _sampled(frames, grid, interpolation, fill)


def perspective(
    frames: Tensor,
    end_points: Sequence[Sequence[float]],
    *,
    interpolation: str = "bilinear",
    fill: float | Sequence[float] = 0,
) -> Tensor:
    """Move the corners (top left, top right, bottom right, bottom left) to `end_points`, given as (x, y)."""
    height, width = frames.shape[-2:]
    corners = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    a, b, c, d, e, f, g, h = _perspective_coefficients(corners, end_points)
    x = torch.arange(width, dtype=torch.float32, device=frames.device) + 0.5
    y = torch.arange(height, dtype=torch.float32, device=frames.device)[:, None] + 0.5
    below = g * x + h * y + 1.0
    across, down = (a * x + b * y + c) / below, (d * x + e * y + f) / below
    grid = torch.stack([across / (width / 2) - 1.0, down / (height / 2) - 1.0], dim=-1)
    return _sampled(frames, grid, interpolation, fill)


def resized_crop(
    frames: Tensor, top: int, left: int, height: int, width: int, size_hw: tuple[int, int], interpolation: str
) -> Tensor:
    part = frames[..., top : top + height, left : left + width]
    if (height, width) == tuple(size_hw):
        return part.contiguous()
    flat = part.reshape(-1, *part.shape[-3:]).to(torch.float32)
    smooth = {"antialias": True, "align_corners": False} if interpolation in ("bilinear", "bicubic") else {}
    resized = functional.interpolate(flat, size=tuple(size_hw), mode=interpolation, **smooth)
    return resized.round_().clamp_(0, 255).to(torch.uint8).reshape(*frames.shape[:-2], *size_hw)


def padded(frames: Tensor, sides: tuple[int, int, int, int], fill: float, mode: str) -> Tensor:
    """`sides` are left, right, top, bottom; `mode` constant, edge or reflect."""
    flat = frames.reshape(-1, *frames.shape[-3:])
    if mode == "constant":
        wide = functional.pad(flat, sides, value=fill)
    else:  # torch pads whole numbers only with constants
        name = {"edge": "replicate", "reflect": "reflect"}[mode]
        wide = functional.pad(flat.to(torch.float32), sides, mode=name).to(torch.uint8)
    return wide.reshape(*frames.shape[:-2], *wide.shape[-2:])


def _inverse_affine(
    center: tuple[float, float], angle: float, translate: Sequence[float], scale: float, shear: Sequence[float]
) -> list[float]:
    """Output place -> input place, both relative to the middle of the frame: two rows of a 2×3 matrix.

    The forward map is T · C · R · Sh · S · C⁻¹ with rotation R, shears Sh in x and y, C the centre, T the move.
    """
    turn, shear_x, shear_y = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    a = math.cos(turn - shear_y) / math.cos(shear_y)
    b = -a * math.tan(shear_x) - math.sin(turn)
    c = math.sin(turn - shear_y) / math.cos(shear_y)
    d = -c * math.tan(shear_x) + math.cos(turn)
    m = [d / scale, -b / scale, -c / scale, a / scale]
    from_x, from_y = -center[0] - translate[0], -center[1] - translate[1]
    return [
        *(m[0], m[1], m[0] * from_x + m[1] * from_y + center[0]),
        *(m[2], m[3], m[2] * from_x + m[3] * from_y + center[1]),
    ]


def _perspective_coefficients(start: Sequence[Sequence[float]], end: Sequence[Sequence[float]]) -> list[float]:
    """Eight numbers that take an end point back to its start point."""
    rows = []
    for (x, y), (u, v) in zip(end, start, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    right = np.array(start, dtype=np.float64).reshape(8)
    solved = np.linalg.lstsq(np.array(rows, dtype=np.float64), right, rcond=None)[0]
    return solved.astype(np.float32).tolist()


def _sampled(frames: Tensor, grid: Tensor, interpolation: str, fill: float | Sequence[float]) -> Tensor:
    """Frames read at `grid` (H, W, 2) in [-1, 1]; what lies outside is `fill`."""
    flat = frames.reshape(1, -1, *frames.shape[-2:]).to(torch.float32)  # frames and channels share one grid
    options = {"mode": interpolation, "padding_mode": "zeros", "align_corners": False}
    moved = functional.grid_sample(flat, grid[None], **options).reshape(frames.shape)  # type: ignore[arg-type]
    colour = torch.as_tensor(fill, dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
    if interpolation != "nearest" or colour.any():
        inside = functional.grid_sample(torch.ones_like(flat[:, :1]), grid[None], **options)[0]  # type: ignore[arg-type]
        if interpolation == "nearest":
            moved = torch.where(inside < 0.5, colour, moved)
        else:  # torchvision blends with what grid_sample has blended with black already: a dark rim, kept here
            moved = (moved - colour) * inside + colour
    return moved.round_().clamp_(0, 255).to(torch.uint8)
