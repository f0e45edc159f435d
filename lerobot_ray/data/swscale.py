"""Video frames to RGB by FFmpeg's swscale, on one thread, with matrix and range said out loud.

PyAV before 17 takes BT.601 for every frame that is converted without saying so (and so does LeRobot's pyav backend);
later ones read the frame's tags, and use every core unless told otherwise.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

SWS_COLORSPACES = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
"""swscale's numbers of the matrices that `colour` knows."""

ONE_THREAD: dict[str, Any] = {} if int(av.__version__.split(".")[0]) < 17 else {"threads": 1}


class RgbConverter:
    """Converts frames of one matrix and range. Not for several threads at once.

    One per setting: an older PyAV's reformatter keeps the colours of the frame before when the next one names the same
    matrix for source and target.
    """

    def __init__(self, matrix: str | None, full_range: bool) -> None:
        """`matrix` is a key of SWS_COLORSPACES, or None to leave it to the frame's own tags."""
        self._reformatter = VideoReformatter()
        self._arguments: dict[str, Any] = {"format": "rgb24", **ONE_THREAD}
        if matrix is not None:
            self._arguments |= {
                "src_colorspace": SWS_COLORSPACES[matrix],
                "dst_colorspace": SWS_COLORSPACES["bt601"],
                "src_color_range": 2 if full_range else 1,
                "dst_color_range": 1,
            }

    def convert(self, frame: Any, out: np.ndarray) -> None:
        """Writes `frame` as RGB into `out`, (H, W, 3) uint8 and contiguous."""
        rgb = frame if frame.format.name == "rgb24" else self._reformatter.reformat(frame, **self._arguments)
        out.reshape(rgb.height, rgb.width * 3)[...] = plane_pixels(rgb.planes[0], 3)


def plane_pixels(plane: Any, bytes_per_pixel: int = 1) -> np.ndarray:
    """A plane's rows without their padding, as bytes: a view of the frame's memory."""
    rows = np.frombuffer(plane, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width * bytes_per_pixel]
