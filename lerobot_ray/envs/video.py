"""The video of an episode: what the environment draws, one picture per step and one before the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lerobot_ray.data.disk import publish, unfinished_name
from lerobot_ray.data.encode import EpisodeEncoder, VideoCodec

CODEC = VideoCodec("libx264", g=10, crf=23)
"""Plays in every browser."""


def video_path(folder: Path, episode: int) -> Path:
    """LeRobot's name for the video of an episode."""
    return folder / f"eval_episode_{episode}.mp4"


class EpisodeVideo:
    """A video under way. The file appears when it is whole."""

    def __init__(self, path: Path, *, fps: int) -> None:
        self.path, self._fps = path, fps
        self._encoder: EpisodeEncoder | None = None

    def add(self, picture: np.ndarray) -> None:
        """The next picture, uint8 (H, W, 3)."""
        height, width = picture.shape[:2]
        if height % 2 or width % 2:  # what browsers play has half as many rows and columns of colours
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._encoder is None:
            size = {"height": picture.shape[0], "width": picture.shape[1]}
            self._encoder = EpisodeEncoder(unfinished_name(self.path), codec=CODEC, fps=self._fps, **size)
        self._encoder.add(picture)

    def close(self) -> Path | None:
        """Its path, None when there was no picture."""
        if self._encoder is None:
            return None
        self._encoder.close()
        publish(self.path, durable=False)
        return self.path

    def abandon(self) -> None:
        """Leaves no file."""
        if self._encoder is not None:
            self._encoder.abandon()
