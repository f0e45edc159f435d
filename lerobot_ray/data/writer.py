"""Writes a dataset in LeRobot's v3.0 format, frame by frame, from your own code.

    with DatasetWriter(root, repo_id="me/stack", fps=30, features=FEATURES) as writer:
        for episode in episodes:
            for frame in episode:
                writer.add_frame({"observation.state": …, "observation.images.front": …, "action": …, "task": "stack"})
            writer.save_episode()

Cameras are encoded while frames arrive, so an episode of pixels is never held. `save_episode` is the moment an episode
is safe; `finalize` (the end of the `with`) makes the files a dataset. If the process dies in between, `resume` goes on
with every episode that was saved. How that is kept on disk is `recording`; the metadata is written by `finalize`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import DEFAULT_CHUNKS_SIZE, DEFAULT_DATA_FILE_MB, DEFAULT_VIDEO_FILE_MB, INFO_PATH
from lerobot_ray.core.types import TASK
from lerobot_ray.data import manifest
from lerobot_ray.data.encode import (
    VideoCodec,
    try_encoder,
    video_codec,
)
from lerobot_ray.data.features import parse_feature
from lerobot_ray.data.incoming import check_features, check_frame
from lerobot_ray.data.open_episode import Format, OpenEpisode
from lerobot_ray.data.recording import SCRATCH_DIR, Recording

logger = logging.getLogger(__name__)

IMAGE_THREADS = 2


class DatasetWriter:
    """One recording. Not thread-safe: frames come from one thread.

    root: a folder that does not exist yet or is empty; `resume` opens an existing one.
    features: entries as in info.json, without the five index features, which are added. Cameras are (height, width,
        channels) with dtype "video" or "image"; a depth camera has one channel and `"info": {"is_depth_map": True}`.
    durable: wait for the disk after each episode, so that a power cut cannot take a saved one. Turn it off for
        conversions that can be run again; a killed process loses no saved episode either way.
    codec: "av1" as LeRobot records, or "h264", "hevc" or a hardware encoder; depth is always lossless hevc.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        repo_id: str,
        fps: int,
        features: Mapping[str, Mapping[str, Any]],
        robot_type: str | None = None,
        codec: str | VideoCodec = "av1",
        data_files_size_in_mb: float = DEFAULT_DATA_FILE_MB,
        video_files_size_in_mb: float = DEFAULT_VIDEO_FILE_MB,
        chunks_size: int = DEFAULT_CHUNKS_SIZE,
        durable: bool = True,
    ) -> None:
        root = Path(root).expanduser().absolute()
        if (root / SCRATCH_DIR).exists():
            raise DatasetError(
                f"{root} holds an unfinished recording. Go on with DatasetWriter.resume({str(root)!r}), or delete the "
                "folder."
            )
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DatasetError(
                f"{root} exists and is not empty. Choose another folder, or add episodes to a dataset that is there "
                f"with DatasetWriter.resume({str(root)!r})."
            )
        if not isinstance(fps, int) or fps <= 0:
            raise DatasetError(f"fps={fps!r}: expected a positive whole number of frames per second.")
        entries = check_features(features)
        self._codec = video_codec(codec)
        for spec in (parse_feature(name, entry, where="features") for name, entry in entries.items()):
            if spec.is_video and not spec.is_depth:
                try_encoder(self._codec, fps=fps, height=spec.shape[0], width=spec.shape[1])
        self._begin(
            Recording.start(
                root,
                manifest.new_header(
                    repo_id=repo_id,
                    fps=fps,
                    features=entries,
                    robot_type=robot_type,
                    codec=codec if isinstance(codec, str) else codec.encoder,
                    data_files_size_in_mb=data_files_size_in_mb,
                    video_files_size_in_mb=video_files_size_in_mb,
                    chunks_size=chunks_size,
                ),
                durable=durable,
            )
        )

    @classmethod
    def resume(cls, root: str | Path, *, codec: str | VideoCodec | None = None) -> DatasetWriter:
        """Goes on with an unfinished recording, or adds episodes to a finished dataset.

        Of an unfinished recording every saved episode is kept, and `finalize` may be called at once. New episodes of a
        finished dataset go to new files, and nothing that is there changes before `finalize`.
        """
        root = Path(root).expanduser().absolute()
        writer = cls.__new__(cls)
        recording = Recording.load(root) if (root / SCRATCH_DIR).exists() else None
        if recording is None:
            if not (root / INFO_PATH).is_file():
                raise DatasetError(f"{root} holds neither a dataset ({INFO_PATH}) nor an unfinished recording.")
            recording = Recording.start(
                root, manifest.header_to_append(root, codec if isinstance(codec, str) else "av1")
            )
        writer._codec = video_codec(codec or recording.header["codec"])
        writer._begin(recording)
        if recording.episodes:
            logger.info("%s: resumed after %d saved episodes", root, len(recording.episodes))
        return writer

    def _begin(self, recording: Recording) -> None:
        header = recording.header
        self.root, self.repo_id, self.fps = recording.root, header["repo_id"], header["fps"]
        self._recording = recording
        specs = {name: parse_feature(name, entry, where=self.repo_id) for name, entry in header["features"].items()}
        self._tasks: dict[str, int] = {task: number for number, task in enumerate(header["base"]["tasks"])}
        self._frames_before = header["base"]["frames"]
        depth_units = {name: spec.info["depth_unit"] for name, spec in specs.items() if "depth_unit" in spec.info}
        for document in recording.episodes:
            self._frames_before += document["length"]
            for task in document["tasks"]:
                self._tasks.setdefault(task, len(self._tasks))
            depth_units |= document["depth_units"]
        self._form = Format(
            repo_id=self.repo_id,
            fps=self.fps,
            codec=self._codec,
            specs=specs,
            depth_units=depth_units,
            images=ThreadPoolExecutor(max_workers=IMAGE_THREADS, thread_name_prefix="images"),
        )
        self._given = self._form.given
        self._episode: OpenEpisode | None = None
        self._closed = False

    @property
    def num_episodes(self) -> int:
        """Episodes in the dataset so far, with those that were there before this recording."""
        return self._recording.header["base"]["episodes"] + len(self._recording.episodes)

    @property
    def num_frames(self) -> int:
        """Frames of the saved episodes."""
        return self._frames_before

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Adds one frame to the open episode: a value per feature, and "task", what the robot is asked to do.

        Arrays have the feature's dtype and shape (a scalar or shape (1,) for shape [1]); colour frames are uint8
        (H, W, 3) RGB, depth frames uint16 millimetres or float32 metres (H, W) or (H, W, 1). They are copied.
        """
        self._check_open()
        number = self._episode.length if self._episode else 0
        checked = check_frame(frame, self._given, where=f"{self.repo_id}, episode {self.num_episodes}, frame {number}")
        if self._episode is None:
            folder = self._recording.open_episode()
            self._episode = OpenEpisode(self._form, folder, number=self.num_episodes, first_row=self.num_frames)
        self._episode.add(checked, str(frame[TASK]))

    def save_episode(self) -> None:
        """Makes the open episode safe on disk. The next frame begins another."""
        self._check_open()
        if self._episode is None or not self._episode.length:
            raise DatasetError(
                f"{self.repo_id}, episode {self.num_episodes}: save_episode() without a frame. Call add_frame() first."
            )
        episode, self._episode = self._episode, None
        try:
            document, counts = episode.close(self._tasks)
        except BaseException:
            episode.abandon()
            raise
        self._recording.save_episode(document, manifest.pack_counts(counts))
        self._frames_before += document["length"]
        for task in document["tasks"]:
            self._tasks.setdefault(task, len(self._tasks))

    def discard_episode(self) -> None:
        """Forgets the frames since the last `save_episode`, for a take that went wrong."""
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.abandon()

    def finalize(self, *, progress: bool | None = None) -> None:
        """Makes the saved episodes a dataset: joins files, computes statistics, writes the metadata. Closes the writer.

        `progress`: a bar on stderr; by default only in a terminal.
        """
        self._check_open()
        if self._episode is not None:
            raise DatasetError(
                f"{self.repo_id}: finalize() with {self._episode.length} frames of an unsaved episode. "
                "Call save_episode() or discard_episode() first."
            )
        if not self.num_episodes:
            raise DatasetError(f"{self.repo_id}: finalize() without a saved episode; there is nothing to write.")
        if self._recording.episodes:  # else nothing was added to a dataset that is there
            manifest.finalize(self._recording, progress=progress)
        self.close()

    def close(self) -> None:
        """Lets go without finalizing. Saved episodes stay; `resume` finds them. An open episode is lost."""
        if not self._closed:
            self.discard_episode()
            self._form.images.shutdown()
            if not self._recording.episodes:
                self._recording.discard()
            self._closed = True

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closed:
            return
        try:
            if kind is None:
                self.finalize()
        finally:
            kept = len(self._recording.episodes)
            self.close()
        if kind is not None and kept:
            logger.warning(
                "%s: recording stopped by %s; %d saved episodes are kept. DatasetWriter.resume(%r) goes on.",
                self.repo_id,
                kind.__name__,
                kept,
                str(self.root),
            )

    def _check_open(self) -> None:
        if self._closed:
            raise DatasetError(
                f"{self.repo_id}: this writer is closed. DatasetWriter.resume({str(self.root)!r}) adds more episodes."
            )
