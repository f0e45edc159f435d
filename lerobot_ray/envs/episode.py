"""An episode being played: what has happened in it so far, and the files it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerobot_ray.envs.record import EpisodeRecording
from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.envs.stage import EnvSpec, Moment
from lerobot_ray.envs.video import EpisodeVideo, video_path


@dataclass(frozen=True)
class EpisodeFiles:
    """Which files episodes leave."""

    fps: int
    video_dir: Path | None = None
    videos: int = 0
    """Episodes numbered below this get a video."""
    recording: Path | None = None
    """Where episodes are recorded."""


class Episode:
    """`add` its moments, say what was `acted`, and `close` it when it `has_ended`."""

    def __init__(self, number: int, seed: int, task: str, spec: EnvSpec, files: EpisodeFiles) -> None:
        self.number, self.seed, self._task, self._spec, self._files = number, seed, task, spec, files
        self.length, self.has_ended, self.is_closed = 0, False, False
        self.observation: dict[str, np.ndarray] | None = None
        """The last one."""
        self._rewards: list[float] = []
        self._success: bool | None = None
        self._error: str | None = None
        self._began = False
        self._video: EpisodeVideo | None = None
        self._recording: EpisodeRecording | None = None
        if files.video_dir is not None and number < files.videos:
            self._video = EpisodeVideo(video_path(files.video_dir, number), fps=files.fps)

    @property
    def wants_pictures(self) -> bool:
        return self._video is not None

    def add(self, moment: Moment) -> None:
        """The environment's answer to the reset, then to each step."""
        self.observation = moment.observation
        if self._video is not None and moment.picture is not None:
            self._video.add(moment.picture)
        if not self._began:
            self._begin()
        else:
            self.length += 1
            self._rewards.append(moment.reward)
            self._success, self.has_ended = moment.success, moment.ended
        if self._recording is not None:
            self._recording.observed(moment, is_last=self.has_ended)
        if not self.has_ended and self.length >= self._spec.step_limit:
            self.fail(f"it did not end after {self.length} steps, its limit")

    def _begin(self) -> None:
        self._began = True
        if self._files.recording is not None:  # only now: an encoder and a folder for each episode that waits are many
            self._recording = EpisodeRecording(
                self._files.recording, self._task, self.number, self._spec, fps=self._files.fps
            )

    def acted(self, action: np.ndarray) -> None:
        """The action that the next moment answers."""
        if self._recording is not None:
            self._recording.acted(action)

    def fail(self, reason: str) -> None:
        """It cannot go on."""
        self._error, self._success, self.has_ended = reason, None, True

    def close(self) -> EpisodeResult:
        """Completes its files."""
        self.is_closed = True
        video = self._video.close() if self._video is not None else None
        if self._recording is not None:
            self._recording.close(keep=self._error is None)
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

    def abandon(self) -> None:
        """Leaves no file: playing stopped in the middle of it."""
        if self.is_closed:
            return
        if self._video is not None:
            self._video.abandon()
        if self._recording is not None:
            self._recording.close(keep=False)
