"""Rollouts as a LeRobot dataset: each episode is recorded by itself while it is played, then all are joined.

So episodes may be played side by side, in several processes and in any order, and one that is played again replaces
what the first time left. Frame t holds what was observed, the action taken then, and what came of it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.core.types import ACTION, DONE, REWARD, TASK
from lerobot_ray.data.join import join_recordings
from lerobot_ray.data.writer import DatasetWriter
from lerobot_ray.envs.keys import is_camera
from lerobot_ray.envs.stage import EnvSpec, Moment

SUCCESS = "next.success"
PARTS = ".episodes"
CODEC = "h264"
"""Quick to encode; the processors are needed for the environments."""


def join_recording(folder: str | Path, *, repo_id: str) -> int:
    """Makes `folder`, which `play(recording=folder)` filled, a dataset of the episodes played to their end.

    They come in the order of their task's name and their number. Returns how many there are.
    """
    folder = Path(folder)
    parts = sorted((folder / PARTS).iterdir()) if (folder / PARTS).is_dir() else []
    count = join_recordings(parts, folder, repo_id=repo_id, progress=False)
    shutil.rmtree(folder / PARTS)
    return count


class EpisodeRecording:
    """One episode under way: `observed`, `acted`, `observed`, …, then `close`."""

    def __init__(self, folder: Path, task: str, number: int, spec: EnvSpec, *, fps: int) -> None:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", task)
        self._root, self._prompt = folder / PARTS / f"{slug}_{number:06d}", spec.prompt or task
        shutil.rmtree(self._root, ignore_errors=True)
        self._writer = DatasetWriter(
            self._root, repo_id=folder.name, fps=fps, features=features(spec), codec=CODEC, durable=False
        )
        self._frame: dict[str, Any] = {}

    def observed(self, moment: Moment, *, is_last: bool) -> None:
        """What an action led to, or, the first time, what the episode begins with."""
        if self._frame:
            outcome = {REWARD: [moment.reward], DONE: [is_last], SUCCESS: [bool(moment.success)]}
            self._writer.add_frame({**self._frame, **outcome})
        self._frame = {key: as_frame(key, value) for key, value in moment.observation.items()}
        self._frame[TASK] = self._prompt

    def acted(self, action: np.ndarray) -> None:
        """The action taken now."""
        self._frame[ACTION] = action.astype(np.float32)

    def close(self, *, keep: bool) -> None:
        """Saves the episode, or leaves nothing of it."""
        if keep:
            self._writer.save_episode()
        self._writer.close()
        if not keep:
            shutil.rmtree(self._root, ignore_errors=True)


def features(spec: EnvSpec) -> dict[str, dict[str, Any]]:
    """Entries of info.json for what an environment gives and takes."""
    entries: dict[str, dict[str, Any]] = {}
    for name, feature in spec.features.items():
        if is_camera(name):
            entries[name] = {
                "dtype": "video",
                "shape": (*feature.shape[1:], 3),
                "names": ["height", "width", "channels"],
            }
        else:
            entries[name] = {"dtype": "float32", "shape": feature.shape or (1,), "names": None}
    entries[REWARD] = {"dtype": "float32", "shape": (1,), "names": None}
    entries[DONE] = entries[SUCCESS] = {"dtype": "bool", "shape": (1,), "names": None}
    return entries


def as_frame(name: str, value: np.ndarray) -> np.ndarray:
    """An observation as a dataset holds it: cameras in colour, nothing without a shape."""
    if is_camera(name):
        return np.repeat(value, 3, axis=-1) if value.shape[-1] == 1 else value
    return value.reshape(value.shape or (1,))
