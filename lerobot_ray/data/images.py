"""Encoded images, as `image` cameras keep them in the tables, to arrays: PNG (or JPEG) for colours, TIFF for depth."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from lerobot_ray.core.errors import FrameError

COLOUR_MODES = {
    "1": "L",
    "L": "L",
    "P": "RGB",
    "RGB": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "PA": "RGBA",
    "RGBA": "RGBA",
}
"""PIL mode -> the 8-bit mode it becomes. Grey stays one channel and alpha a fourth, as in LeRobot."""

REMEDY = "Record the episode again, or drop it."


def decode_image(encoded: bytes | Mapping[str, Any], *, depth: bool = False) -> np.ndarray:
    """(H, W, C) uint8 colours; with `depth`, (H, W, 1) uint16 or float32 as it was stored, in the recorder's unit.

    `encoded` is the file's bytes, or the table's struct of `bytes` and `path`. Anything that is no whole image of the
    kind asked for is a FrameError, which names `path` when there is one.
    """
    name = ""
    if isinstance(encoded, Mapping):
        encoded, name = encoded.get("bytes"), str(encoded.get("path") or "")  # type: ignore[assignment]
    if not encoded:
        raise FrameError(f"the table holds no image bytes here. {REMEDY}", file=name)
    try:
        with Image.open(io.BytesIO(encoded)) as image:  # type: ignore[arg-type]
            return _depth(image, name) if depth else _colours(image, name)
    except FrameError:
        raise
    except Exception as error:  # PIL's parsers raise whatever the damage leads them to
        raise FrameError(f"these {len(encoded)} bytes are not a whole image ({error}). {REMEDY}", file=name) from error


def _colours(image: Image.Image, name: str) -> np.ndarray:
    if image.mode not in COLOUR_MODES:
        raise FrameError(
            f"a {image.format} of mode {image.mode} is not an 8-bit picture. A depth camera needs is_depth_map in its "
            "feature's info.",
            file=name,
        )
    pixels = np.array(image if image.mode == COLOUR_MODES[image.mode] else image.convert(COLOUR_MODES[image.mode]))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _depth(image: Image.Image, name: str) -> np.ndarray:
    pixels = np.array(image)
    if pixels.ndim == 2 and pixels.dtype.kind in "ui" and pixels.dtype.itemsize <= 4:
        if pixels.dtype.itemsize == 4 and (pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max):
            raise FrameError(f"depth from {pixels.min()} to {pixels.max()} does not fit 16 bits. {REMEDY}", file=name)
        return pixels.astype(np.uint16)[..., None]
    if pixels.ndim == 2 and pixels.dtype == np.float32:
        return pixels[..., None]
    raise FrameError(
        f"a {image.format} of mode {image.mode} is not depth; expected one 16-bit or float32 plane. {REMEDY}", file=name
    )
