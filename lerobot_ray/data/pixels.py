"""Colour operations on uint8 frames (..., C, H, W), C 1 or 3, as torchvision defines them for uint8, on any device.

Each returns uint8. Where torchvision truncates, so does this; where it rounds, this rounds (a test holds both to one
level). Every frame is treated for itself: an operation that looks at the whole picture looks at one frame.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_GREY = (0.2989, 0.587, 0.114)


def blended(frames: Tensor, other: Tensor | float, ratio: float) -> Tensor:
    """ratio · frames + (1 − ratio) · other, clamped and truncated."""
    return (frames * ratio + other * (1.0 - ratio)).clamp_(0, 255).to(torch.uint8)


def grey(frames: Tensor) -> Tensor:
    """Luminance as whole float32 levels (..., 1, H, W)."""
    if frames.shape[-3] == 1:
        return frames.to(torch.float32)
    red, green, blue = frames.to(torch.float32).unbind(-3)
    return (red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]).floor_().unsqueeze(-3)


def brightness(frames: Tensor, factor: float) -> Tensor:
    return blended(frames, 0.0, factor)


def contrast(frames: Tensor, factor: float) -> Tensor:
    return blended(frames, grey(frames).mean(dim=(-3, -2, -1), keepdim=True), factor)


def saturation(frames: Tensor, factor: float) -> Tensor:
    return frames if frames.shape[-3] == 1 else blended(frames, grey(frames), factor)


def hue(frames: Tensor, shift: float) -> Tensor:
    """Turn the colour circle by `shift` of a full turn."""
    if frames.shape[-3] == 1:
        return frames
    hue_, saturation_, value = _rgb_to_hsv(frames.to(torch.float32) / 255.0)
    return _hsv_to_levels((hue_ + shift).remainder_(1.0), saturation_, value)


def sharpness(frames: Tensor, factor: float) -> Tensor:
    """0 is a little blurred, 1 the frame, 2 sharpened. The outermost pixels stay."""
    if min(frames.shape[-2:]) <= 2:
        return frames
    full = frames.to(torch.float32)
    kernel = torch.ones(3, 3, device=frames.device)
    kernel[1, 1] = 5.0
    blurred = _depthwise(full, kernel / kernel.sum()).round_()
    inner = full[..., 1:-1, 1:-1]
    inner += (blurred - inner) * (1.0 - factor)
    return full.clamp_(0, 255).to(torch.uint8)


def gaussian_blur(frames: Tensor, kernel_xy: tuple[int, int], sigma_xy: tuple[float, float]) -> Tensor:
    kernels = [_gaussian(size, sigma, frames.device) for size, sigma in zip(kernel_xy, sigma_xy, strict=True)]
    (half_x, half_y) = (size // 2 for size in kernel_xy)
    padded = _padded(frames.to(torch.float32), (half_x, half_x, half_y, half_y), "reflect")
    return _depthwise(padded, kernels[1][:, None] * kernels[0][None, :]).round_().to(torch.uint8)


def invert(frames: Tensor) -> Tensor:
    return 255 - frames


def posterize(frames: Tensor, bits: int) -> Tensor:
    return frames & (256 - (1 << (8 - bits)))


def solarize(frames: Tensor, threshold: float) -> Tensor:
    return torch.where(frames >= threshold, 255 - frames, frames)


def autocontrast(frames: Tensor) -> Tensor:
    """Stretch each channel of each frame to the full range."""
    full = frames.to(torch.float32)
    low, high = full.amin(dim=(-2, -1), keepdim=True), full.amax(dim=(-2, -1), keepdim=True)
    is_flat = low == high
    low, scale = torch.where(is_flat, 0.0, low), torch.where(is_flat, 1.0, (high - low) / 255.0)
    return ((full - low) / scale).clamp_(0, 255).to(torch.uint8)


def equalize(frames: Tensor) -> Tensor:
    """Flatten the histogram of each channel of each frame."""
    planes = frames.flatten(0, -3).flatten(1).to(torch.int64)
    histogram = torch.zeros(len(planes), 256, dtype=torch.int64, device=frames.device)
    histogram.scatter_add_(1, planes, torch.ones_like(planes))
    brightest = planes.amax(dim=1, keepdim=True)
    step = (planes.shape[1] - histogram.gather(1, brightest)) // 255
    before = histogram.cumsum(1) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=frames.device), table)
    return table.gather(1, planes).to(torch.uint8).reshape(frames.shape)


def grayscale(frames: Tensor) -> Tensor:
    """Grey in all channels."""
    return grey(frames).to(torch.uint8).expand_as(frames).contiguous()


def jpeg(frames: Tensor, quality: int) -> Tensor:
    """Through JPEG and back (on the CPU), one frame at a time."""
    from PIL import Image

    flat = frames.reshape(-1, *frames.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()
    back = []
    for image in flat:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        back.append(np.asarray(Image.open(file)).reshape(image.shape))
    stacked = torch.from_numpy(np.stack(back)).permute(0, 3, 1, 2)
    return stacked.reshape(frames.shape).to(frames.device)


# What a camera does to a picture


def gamma(frames: Tensor, exponent: float) -> Tensor:
    """(level / 255) ** exponent: below 1 brightens, above 1 darkens."""
    return _levels((frames.to(torch.float32) / 255.0) ** exponent)


def channel_gains(frames: Tensor, gains: tuple[float, float, float]) -> Tensor:
    if frames.shape[-3] == 1:
        return frames
    factors = torch.tensor(gains, device=frames.device, dtype=torch.float32)[:, None, None]
    return (frames * factors).round_().clamp_(0, 255).to(torch.uint8)


def pixel_gains(frames: Tensor, gains: Tensor) -> Tensor:
    """Multiply by a map that broadcasts over frames and channels."""
    return (frames * gains).round_().clamp_(0, 255).to(torch.uint8)


def added(frames: Tensor, levels: Tensor) -> Tensor:
    return (frames + levels).round_().clamp_(0, 255).to(torch.uint8)


def motion_blur(frames: Tensor, length: int, angle_degrees: float) -> Tensor:
    """The mean along a line of `length` pixels through each pixel; beyond the edge its pixels repeat."""
    half, angle = length // 2, math.radians(angle_degrees)
    steps = {(round(t * math.sin(angle)), round(t * math.cos(angle))) for t in range(-half, half + 1)}
    padded = _padded(frames.to(torch.float32), (half, half, half, half), "replicate")
    height, width = frames.shape[-2:]
    total = torch.zeros(frames.shape, dtype=torch.float32, device=frames.device)
    for down, right in sorted(steps):
        total += padded[..., half + down : half + down + height, half + right : half + right + width]
    return (total / len(steps)).round_().to(torch.uint8)


def _levels(unit: Tensor) -> Tensor:
    """[0, 1] to the nearest level."""
    return (unit * 255.0).round_().clamp_(0, 255).to(torch.uint8)


def _padded(frames: Tensor, sides: tuple[int, int, int, int], mode: str) -> Tensor:
    flat = frames.reshape(-1, *frames.shape[-3:])
    padded = functional.pad(flat, sides, mode=mode)
    return padded.reshape(*frames.shape[:-2], *padded.shape[-2:])


def _depthwise(frames: Tensor, kernel: Tensor) -> Tensor:
    """Correlate each channel with the kernel, valid positions only."""
    flat = frames.reshape(-1, 1, *frames.shape[-2:])
    filtered = functional.conv2d(flat, kernel[None, None])
    return filtered.reshape(*frames.shape[:-2], *filtered.shape[-2:])


def _gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    at = torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    return weights / weights.sum()


def _rgb_to_hsv(unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = unit.unbind(-3)
    high, low = unit.amax(-3), unit.amin(-3)
    spread = high - low
    is_grey = spread == 0
    divisor = torch.where(is_grey, 1.0, spread)
    saturation_ = spread / torch.where(is_grey, 1.0, high)
    to_red, to_green, to_blue = ((high - plane) / divisor for plane in (red, green, blue))
    sector = torch.where(
        high == red, to_blue - to_green, torch.where(high == green, 2.0 + to_red - to_blue, 4.0 + to_green - to_red)
    )
    return (sector / 6.0 + 1.0).remainder_(1.0), saturation_, high


def _hsv_to_levels(hue_: Tensor, saturation_: Tensor, value: Tensor) -> Tensor:
    """uint8 RGB (..., 3, H, W). Scaled as torchvision scales float images to uint8: by 255.999, truncated."""
    sixth = hue_ * 6.0

    def plane(turn: int) -> Tensor:
        distance = (sixth + turn) % 6.0
        return value - value * saturation_ * torch.minimum(distance, 4.0 - distance).clamp(0.0, 1.0)

    rgb = torch.stack([plane(5), plane(3), plane(1)], dim=-3).clamp_(0.0, 1.0)
    return (rgb * 255.999).to(torch.uint8)
