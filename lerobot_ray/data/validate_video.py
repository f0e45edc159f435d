"""One video file against the metadata: is every frame of every episode there, on the time grid, and decodable?"""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np

from lerobot_ray.core.errors import FrameError, LerobotRayError
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.problems import Problem
from lerobot_ray.data.storage import Storage
from lerobot_ray.data.validate_rows import FETCH_AGAIN, RECORD_AGAIN, TOLERANCE_S
from lerobot_ray.data.video import VideoReader
from lerobot_ray.data.video_index import VideoIndex, index_from_packets

FRAMES_AT_A_TIME = 16


@dataclass(frozen=True)
class VideoTask:
    """A video file and the episodes the metadata puts into it."""

    storage: Storage
    path: str
    spec: FeatureSpec
    fps: float
    episodes: tuple[int, ...]
    from_s: tuple[float, ...]
    to_s: tuple[float, ...]
    lengths: tuple[int, ...]
    quick: bool
    """Decode the first, the middle and the last frame of an episode only."""


def check_video(task: VideoTask) -> list[Problem]:
    """Runs the checks of one file. Never raises for what is wrong with the data."""
    try:
        path = task.storage.local(task.path)
        index = index_from_packets(path)
    except (LerobotRayError, av.FFmpegError, OSError, LookupError) as error:  # no video stream is a LookupError
        return [Problem(task.path, f"cannot be opened: {_short(error)}.", FETCH_AGAIN, task.episodes)]
    if not len(index.pts):
        return [Problem(task.path, "holds no frames.", FETCH_AGAIN, task.episodes)]
    problems, complete = _check_times(task, index)
    return problems + _check_pictures(task, complete)


def crashed(task: VideoTask) -> list[Problem]:
    """What to say about a file whose decoding took the process down with it."""
    return [Problem(task.path, "crashed the decoder.", FETCH_AGAIN, task.episodes)]


def _check_times(task: VideoTask, index: VideoIndex) -> tuple[list[Problem], list[int]]:
    """Problems, and the positions in the task of episodes whose every frame is where it should be."""
    problems, complete, used = [], [], 0
    for number, episode in enumerate(task.episodes):
        length, start = task.lengths[number], task.from_s[number]
        wanted = start + np.arange(length) / task.fps
        ranks = index.nearest(wanted)
        off = np.abs(index.times_s[ranks] - wanted) > TOLERANCE_S
        used += length
        if off.any():
            first = int(np.argmax(off))
            end = float(index.times_s[-1]) + 1 / task.fps
            reason = f"the file ends at {end:.3f} s" if wanted[first] > index.times_s[-1] else "frames are off the grid"
            text = (
                f"{int(off.sum())} of {length} frames are missing, the first is frame {first} at {wanted[first]:.3f} s"
            )
            problems.append(Problem(task.path, f"{text}: {index.note or reason}.", RECORD_AGAIN, (episode,)))
        else:
            complete.append(number)
            if abs(task.to_s[number] - start - length / task.fps) > 0.5 / task.fps:
                text = (
                    f"the episode table gives it {task.to_s[number] - start:.3f} s; "
                    f"{length} frames are {length / task.fps:.3f} s."
                )
                problems.append(Problem(task.path, text, "Frames are read by start and number.", (episode,), "warning"))
    if len(index.pts) > used:
        text = f"holds {len(index.pts) - used} frames that belong to no episode."
        problems.append(Problem(task.path, text, "Harmless: they are never read.", severity="warning"))
    return problems, complete


def _check_pictures(task: VideoTask, complete: list[int]) -> list[Problem]:
    problems: list[Problem] = []
    path = task.storage.local(task.path)
    height, width = task.spec.channels_first_shape[1:]
    with VideoReader(pixel_format="rgb24") as reader:
        try:
            info = reader.info(path)
        except LerobotRayError as error:
            return [Problem(task.path, f"cannot be decoded: {_short(error)}.", FETCH_AGAIN, task.episodes)]
        if task.spec.is_depth and info.transport != "gray12le":
            text = f"is {info.pix_fmt}, not the 12-bit grey of a depth video."
            return [Problem(task.path, text, "Encode it again as gray12le.", task.episodes)]
        reader.pixel_format = info.transport  # needs no conversion, where that is possible
        if (info.height, info.width) != (height, width):
            text = f"frames are {info.width}x{info.height}; info.json says {width}x{height}."
            problems.append(Problem(task.path, text, "Correct info.json or encode again.", task.episodes))
        for number in complete:
            length = task.lengths[number]
            frames = np.unique([0, length // 2, length - 1]) if task.quick else np.arange(length)
            times_s = task.from_s[number] + frames / task.fps
            try:
                for at in range(0, len(times_s), FRAMES_AT_A_TIME):
                    reader.read(path, times_s[at : at + FRAMES_AT_A_TIME], tolerance_s=TOLERANCE_S)
            except FrameError as error:
                last = frames[min(at + FRAMES_AT_A_TIME, len(frames)) - 1]
                # The reader's own remedies follow its first sentence; here an episode can be left out.
                text = f"frames {frames[at]} to {last} cannot be had: {error.reason.split('. ')[0].rstrip('.')}."
                problems.append(Problem(task.path, text, RECORD_AGAIN, (task.episodes[number],)))
    return problems


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
