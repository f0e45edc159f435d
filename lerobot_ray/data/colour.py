"""Packed YUV 4:2:0 to RGB, on any device, with the very numbers swscale gives.

Frames travel as YUV420: half the bytes of RGB, and a third less CPU where they are decoded. What arrives has to be what
LeRobot would have decoded, so the arithmetic here is that of swscale's fast path: integers, 13-bit coefficients,
truncating shifts, each chroma sample used for its four pixels without interpolation. On x86 the result equals PyAV's
`to_ndarray(format="rgb24")` and LeRobot 0.6.1 with torchcodec in every bit, for each of the 2^24 inputs and for both
ranges and all matrices below; LeRobot's pyav backend (PyAV 15) takes BT.601 whatever the file says, and so differs by
up to 40 on files tagged BT.709. Streams that do not name their matrix are BT.601, limited range, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
import torch

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.swscale import RgbConverter, plane_pixels

MATRICES = {  # contributions of V to R, U to B, U to G, V to G in 1/65536, for the limited range
    "bt709": (117489, 138438, 13975, 34925),
    "fcc": (104448, 132798, 24759, 53109),
    "bt601": (104597, 132201, 25675, 53279),
    "smpte240m": (117579, 136230, 16907, 35559),
    "bt2020": (110013, 140363, 12277, 42626),
}


@dataclass(frozen=True)
class Coefficients:
    """In 1/8192, applied to samples times 8: what swscale multiplies 16-bit words by."""

    y: int
    y_black: int
    v_to_r: int
    u_to_b: int
    u_to_g: int
    v_to_g: int


@lru_cache
def coefficients(matrix: str, full_range: bool) -> Coefficients:
    if matrix not in MATRICES:
        raise DatasetError(f"unknown colour matrix {matrix!r}; known: {', '.join(MATRICES)}. Read the video as rgb24.")
    y, black = (1 << 16, 0) if full_range else ((1 << 16) * 255 // 219, 16)
    v_to_r, u_to_b, u_to_g, v_to_g = (c * 224 // 255 if full_range else c for c in MATRICES[matrix])
    return Coefficients(_in_8192(y), black, *map(_in_8192, (v_to_r, u_to_b, -u_to_g, -v_to_g)))


def _in_8192(in_65536: int) -> int:
    return (in_65536 + 4) >> 3


def yuv420_to_rgb(packed: torch.Tensor, *, matrix: str = "bt601", full_range: bool = False) -> torch.Tensor:
    """(..., H*3/2, W) uint8 to (..., 3, H, W) uint8, on the device of `packed`, without waiting for it.

    On a CPU swscale does it (a tenth of the time) and the result is a view of interleaved memory, channels last.
    """
    if packed.device.type == "cpu":
        return torch.from_numpy(yuv420_to_rgb_numpy(packed.numpy(), matrix=matrix, full_range=full_range)).movedim(
            -1, -3
        )
    return yuv420_to_rgb_on_device(packed, matrix=matrix, full_range=full_range)


def yuv420_to_rgb_on_device(packed: torch.Tensor, *, matrix: str = "bt601", full_range: bool = False) -> torch.Tensor:
    """`yuv420_to_rgb` in tensor operations. The result is contiguous."""
    by = coefficients(matrix, full_range)
    batch, height, width = packed.shape[:-2], packed.shape[-2] * 2 // 3, packed.shape[-1]
    half_h, half_w = height // 2, width // 2
    planes = packed.reshape(-1, height * width * 3 // 2)
    y, chroma = planes[:, : height * width].int(), planes[:, height * width :].int()
    # In place from here on: these are the largest arrays.
    y = y.mul_(8 * by.y).sub_(8 * by.y_black * by.y).bitwise_right_shift_(16).short()
    y = y.view(-1, half_h, 2, half_w, 2)
    u, v = chroma.mul_(8).sub_(8 * 128).view(-1, 2, half_h, 1, half_w, 1).unbind(1)
    added = ((v * by.v_to_r) >> 16, ((u * by.u_to_g) >> 16) + ((v * by.v_to_g) >> 16), (u * by.u_to_b) >> 16)
    rgb = torch.empty((planes.shape[0], 3, half_h, 2, half_w, 2), dtype=torch.uint8, device=packed.device)
    for channel, chroma_part in enumerate(added):
        rgb[:, channel] = (y + chroma_part.short()).clamp_(0, 255)
    return rgb.view(*batch, 3, height, width)


def yuv420_to_rgb_numpy(
    packed: np.ndarray, *, matrix: str = "bt601", full_range: bool = False, out: np.ndarray | None = None
) -> np.ndarray:
    """(..., H*3/2, W) uint8 to (..., H, W, 3) uint8, by swscale in this thread. Fills `out` if given."""
    coefficients(matrix, full_range)  # refuses an unknown name
    batch, height, width = packed.shape[:-2], packed.shape[-2] * 2 // 3, packed.shape[-1]
    if out is None:
        out = np.empty((*batch, height, width, 3), np.uint8)
    # Not VideoFrame.from_numpy_buffer, a copy less: it rounds the height down to a multiple of 4.
    source = av.VideoFrame(width, height, "yuv420p")
    planes = [plane_pixels(plane) for plane in source.planes]
    converter = RgbConverter(matrix, full_range)
    for frame, rgb in zip(packed.reshape(-1, height * width * 3 // 2), out.reshape(-1, height, width, 3), strict=True):
        at = 0
        for pixels in planes:
            pixels[...] = frame[at : at + pixels.size].reshape(pixels.shape)
            at += pixels.size
        converter.convert(source, rgb)
    return out
