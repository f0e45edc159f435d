"""Which rows make a sample: integer offsets around an anchor frame, clamped to its episode.

Pure arithmetic over arrays of anchors. `is_pad` marks what was clamped, so that a loss can leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import ACTION, OBSERVATION, REWARD


def window_rows(
    anchors: np.ndarray, first: np.ndarray, last_exclusive: np.ndarray, offsets: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B, T) of the windows at `anchors` (B,), and which of them fell outside the episode [first, last_exclusive).

    Outside rows repeat the episode's first or last row.
    """
    wanted = np.asarray(anchors, dtype=np.int64)[:, None] + np.asarray(offsets, dtype=np.int64)[None, :]
    low = np.asarray(first, dtype=np.int64)[:, None]
    high = np.asarray(last_exclusive, dtype=np.int64)[:, None] - 1
    rows = np.clip(wanted, low, high)
    return rows, rows != wanted


def offsets_from_timestamps(
    delta_timestamps: Mapping[str, Sequence[float]], fps: float, tolerance_s: float
) -> dict[str, np.ndarray]:
    """Seconds to whole frames. Refuses times that are not multiples of 1/fps within `tolerance_s`."""
    offsets = {}
    for key, seconds in delta_timestamps.items():
        frames = np.asarray(seconds, dtype=np.float64) * fps
        if frames.ndim != 1 or len(frames) == 0 or not np.isfinite(frames).all():
            raise DatasetError(f"delta_timestamps[{key!r}] is {seconds!r}; expected a list of seconds.")
        whole = np.rint(frames)
        off = np.abs(frames - whole) / fps
        if (off > tolerance_s).any():
            worst = int(np.argmax(off))
            raise DatasetError(
                f"delta_timestamps[{key!r}] has {seconds[worst]} s, which is not a multiple of 1/{fps:g} s (the "
                f"nearest is {whole[worst] / fps:g}, {off[worst]:.2g} s away; tolerance_s is {tolerance_s:g})."
            )
        offsets[key] = whole.astype(np.int64)
    return offsets


def delta_offsets(
    features: Iterable[str],
    observation: Sequence[int] | None,
    action: Sequence[int] | None,
    reward: Sequence[int] | None,
) -> dict[str, list[int]]:
    """A policy's delta indices as offsets per feature of the dataset; features without a window are left out."""
    offsets = {}
    for name in features:
        if name == ACTION:
            chosen = action
        elif name == REWARD:
            chosen = reward
        elif name.startswith(f"{OBSERVATION}."):
            chosen = observation
        else:
            chosen = None
        if chosen is not None:
            offsets[name] = [int(offset) for offset in chosen]
    return offsets
