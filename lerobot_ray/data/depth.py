"""Depth as 12-bit codes: what a depth video holds for each distance, and back.

Codes are finest where it matters most, near the camera: they are linear in ln(distance + shift). Distances are in the
unit the camera recorded, metres (floating point) or millimetres (integers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

MAX_CODE = 4095
MILLIMETRES = 1000.0


@dataclass(frozen=True)
class DepthCoding:
    """The range and curve of the codes. Limits are in metres, as info.json has them; `unit` is that of the frames."""

    unit: str = "mm"
    min_m: float = 0.01
    max_m: float = 10.0
    shift_m: float = 3.5
    use_log: bool = True

    @property
    def scale(self) -> float:
        """How many units a metre has."""
        return MILLIMETRES if self.unit == "mm" else 1.0

    def encode(self, depth: np.ndarray) -> np.ndarray:
        """Distances in `unit`, any shape, to uint16 codes; what is out of range takes the nearest end."""
        if depth.dtype == np.uint16:  # a table of every value is a tenth of the work
            return _codes_of_uint16(self)[depth]
        return self._encode(depth)

    def _encode(self, depth: np.ndarray) -> np.ndarray:
        low, high, shift = self.min_m * self.scale, self.max_m * self.scale, self.shift_m * self.scale
        distance = np.asarray(depth, np.float64)
        if self.use_log:
            start, end = np.log(low + shift), np.log(high + shift)
            part = (np.log(np.maximum(distance, 0.0) + shift) - start) / (end - start)
        else:
            part = (distance - low) / (high - low)
        # A pixel without a reading (NaN, or 0 with most cameras) is stored as the nearest distance.
        return np.rint(np.nan_to_num(np.clip(part, 0.0, 1.0), nan=0.0) * MAX_CODE).astype(np.uint16)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes to float32 distances in `unit`, within [min, max]."""
        return (self.metres_by_code() * np.float32(self.scale))[np.minimum(codes, MAX_CODE)]

    def metres_by_code(self) -> np.ndarray:
        """Distance in metres of each of the 4096 codes, float32.

        In single precision and in this order, as LeRobot 0.6.1 computes it: all 4096 distances are equal once rounded
        to millimetres (in double precision 3 differ), and within 1e-6 m before.
        """
        codes = np.arange(MAX_CODE + 1, dtype=np.float32)
        if self.use_log:
            start, end = np.log(self.min_m + self.shift_m), np.log(self.max_m + self.shift_m)
            exponent = np.float32(start) + codes * np.float32((end - start) / MAX_CODE)
            metres = np.exp(exponent.astype(np.float64)).astype(np.float32) - np.float32(self.shift_m)
        else:
            metres = np.float32(self.min_m) + codes * np.float32((self.max_m - self.min_m) / MAX_CODE)
        return np.clip(metres, np.float32(self.min_m), np.float32(self.max_m))

    def describe(self) -> dict[str, Any]:
        """The coding's part of a depth video's `info` in info.json."""
        return {
            "video.depth_min": self.min_m,
            "video.depth_max": self.max_m,
            "video.shift": self.shift_m,
            "video.use_log": self.use_log,
        }


@lru_cache(maxsize=8)
def _codes_of_uint16(coding: DepthCoding) -> np.ndarray:
    return coding._encode(np.arange(2**16))


def depth_coding(info: Mapping[str, Any]) -> DepthCoding:
    """The coding of an existing depth video, from its feature's `info`."""
    default = DepthCoding()
    return DepthCoding(
        unit=str(info.get("depth_unit", default.unit)),
        min_m=float(info.get("video.depth_min", default.min_m)),
        max_m=float(info.get("video.depth_max", default.max_m)),
        shift_m=float(info.get("video.shift", default.shift_m)),
        use_log=bool(info.get("video.use_log", default.use_log)),
    )
