"""An episode being played: what has happened in it so far, and the files it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.envs.stage import Moment
from lerobot_ray.envs.video import EpisodeVideo, video_path


@dataclass(frozen=True)
class EpisodeFiles:
    """Which files episodes leave."""

    fps: int
    video_dir: Path | None = None
    videos: int = 0
    """Episodes numbered below this get a video."""


class Episode:
    """`add` its moments, say what was `acted`, and `close` it when it `has_ended`."""

    def __init__(self, number: int, seed: int, task: str, files: EpisodeFiles) -> None:
        self.number, self.seed, self._task = number, seed, task
        self.length, self.has_ended, self.is_closed = 0, False, False
        self.observation: dict[str, np.ndarray] | None = None
        """The last one."""
        self._rewards: list[float] = []
        self._success: bool | None = None
        self._error: str | None = None
        self._began = False
        self._video = None
        if files.video_dir is not None and number < files.videos:
            self._video = EpisodeVideo(video_path(files.video_dir, number), fps=files.fps)

    @property
    def wants_pictures(self) -> bool:
        return self._video is not None

    def add(self, moment: Moment, *, limit: int) -> None:
        """The environment's answer to the reset, then to each step."""
        self.observation = moment.observation
        if self._video is not None and moment.picture is not None:
            self._video.add(moment.picture)
        if not self._began:
            self._began = True
            return
        self.length += 1
        self._rewards.append(moment.reward)
        self._success, self.has_ended = moment.success, moment.ended
        if not moment.ended and self.length >= limit:
            self.fail(f"it did not end after {limit} steps, its limit")

    def acted(self, action: np.ndarray) -> None:
        """The action that the next moment answers."""

    def fail(self, reason: str) -> None:
        """It cannot go on."""
        self._error, self._success, self.has_ended = reason, None, True

    def close(self) -> EpisodeResult:
        """Completes its files."""
        self.is_closed = True
        video = self._video.close() if self._video is not None else None
        return EpisodeResult(
            episode=self.number,
            seed=self.seed,
            task=self._task,
            success=self._success,
            sum_reward=float(np.sum(self._rewards)),
            max_reward=float(np.max(self._rewards, initial=-np.inf)) if self._rewards else 0.0,
            length=self.length,
            video=str(video) if video is not None else None,
            error=self._error,
        )
