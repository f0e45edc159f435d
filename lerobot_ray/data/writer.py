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

import hashlib
import io
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import DEFAULT_CHUNKS_SIZE, DEFAULT_DATA_FILE_MB, DEFAULT_VIDEO_FILE_MB, INFO_PATH
from lerobot_ray.core.types import EPISODE_INDEX, FRAME_INDEX, INDEX, TASK, TASK_INDEX, TIMESTAMP
from lerobot_ray.data import manifest
from lerobot_ray.data.depth import DepthCoding
from lerobot_ray.data.encode import (
    DEPTH_CODEC,
    EpisodeEncoder,
    VideoCodec,
    decoder_header,
    probe,
    try_encoder,
    video_codec,
)
from lerobot_ray.data.features import FeatureSpec, parse_feature
from lerobot_ray.data.incoming import check_features, check_frame
from lerobot_ray.data.recording import DATA_KIND, SCRATCH_DIR, Recording
from lerobot_ray.data.schema import INDEX_ENTRIES, LANGUAGE_PERSISTENT, column, language_row, table_schema
from lerobot_ray.data.stats import (
    ValueCounts,
    as_json,
    byte_counts,
    column_stats,
    pixel_unit,
    sampled_frames,
    subsampled,
)

logger = logging.getLogger(__name__)


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
        self._specs = {
            name: parse_feature(name, entry, where=self.repo_id) for name, entry in header["features"].items()
        }
        self._given = {name: spec for name, spec in self._specs.items() if name not in INDEX_ENTRIES}
        self._schema = table_schema(self._specs.values())
        self._tasks: dict[str, int] = {task: number for number, task in enumerate(header["base"]["tasks"])}
        self._frames_before = header["base"]["frames"]
        self._depth_units: dict[str, str] = {}
        for document in recording.episodes:
            self._frames_before += document["length"]
            for task in document["tasks"]:
                self._tasks.setdefault(task, len(self._tasks))
            self._depth_units.update(document["depth_units"])
        for name, spec in self._specs.items():
            if "depth_unit" in spec.info:
                self._depth_units.setdefault(name, spec.info["depth_unit"])
        self._png = ThreadPoolExecutor(max_workers=2, thread_name_prefix="png")
        self._episode: _OpenEpisode | None = None
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
            self._episode = _OpenEpisode(self, self._recording.open_episode())
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
            document, counts = episode.close()
        except BaseException:
            episode.abandon()
            raise
        self._recording.save_episode(document, counts)
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
            self._png.shutdown()
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


class _OpenEpisode:
    """The episode under way: rows in memory, cameras in encoders, images as PNG."""

    def __init__(self, writer: DatasetWriter, folder: Path) -> None:
        self._writer, self._folder = writer, folder
        self.length = 0
        self._rows: dict[str, list[Any]] = {name: [] for name, spec in writer._given.items() if not spec.is_video}
        self._tasks: list[str] = []
        self._counts: dict[str, list[np.ndarray]] = {n: [] for n, spec in writer._given.items() if spec.is_camera}
        self._encoders: dict[str, EpisodeEncoder] = {}

    def add(self, frame: Mapping[str, Any], task: str) -> None:
        for name, spec in self._writer._given.items():
            if spec.is_depth:  # before anything is added: a refused frame leaves the episode as it was
                self._check_depth_unit(spec, frame[name])
        for name, spec in self._writer._given.items():
            if spec.is_camera:
                self._add_camera(spec, frame[name])
            else:
                self._rows[name].append(frame[name])
        self._tasks.append(task)
        self.length += 1

    def _add_camera(self, spec: FeatureSpec, pixels: np.ndarray) -> None:
        if spec.is_depth:
            self._counts[spec.name].append(subsampled(pixels).copy())
        else:
            self._counts[spec.name].append(byte_counts(pixels))
        if spec.is_image:
            self._rows[spec.name].append(self._writer._png.submit(_image_bytes, pixels))
        else:
            coded = self._coding(spec).encode(pixels) if spec.is_depth else pixels
            self._encoder(spec).add(coded)

    def _check_depth_unit(self, spec: FeatureSpec, pixels: np.ndarray) -> None:
        unit = "m" if pixels.dtype.kind == "f" else "mm"
        expected = self._writer._depth_units.setdefault(spec.name, unit)
        if unit != expected:
            raise DatasetError(
                f"{self._writer.repo_id}: depth frames of {spec.name} came as {pixels.dtype} ({unit}), but the dataset "
                f"holds them in {expected}. Use uint16 millimetres or float32 metres throughout."
            )

    def _coding(self, spec: FeatureSpec) -> DepthCoding:
        return manifest.coding_of(spec, self._writer._depth_units[spec.name])

    def _encoder(self, spec: FeatureSpec) -> EpisodeEncoder:
        if spec.name not in self._encoders:
            height, width, _ = spec.shape
            self._encoders[spec.name] = EpisodeEncoder(
                self._folder / f"{spec.name}.mp4",
                codec=DEPTH_CODEC if spec.is_depth else self._writer._codec,
                fps=self._writer.fps,
                height=height,
                width=width,
            )
        return self._encoders[spec.name]

    def close(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Completes the files; the episode's document, and the pixel counts of its cameras."""
        writer, length = self._writer, self.length
        tasks = list(dict.fromkeys(self._tasks))
        numbers = dict(writer._tasks)
        for task in tasks:
            numbers.setdefault(task, len(numbers))
        columns: dict[str, Any] = {
            **{name: self._column(writer._given[name]) for name in self._rows},
            TIMESTAMP: (np.arange(length) / writer.fps).astype(np.float32),
            FRAME_INDEX: np.arange(length),
            EPISODE_INDEX: np.full(length, writer.num_episodes),
            INDEX: np.arange(length) + writer.num_frames,
            TASK_INDEX: np.array([numbers[task] for task in self._tasks]),
        }
        specs = [spec for spec in writer._specs.values() if not spec.is_video]
        table = pa.Table.from_arrays([column(spec, columns[spec.name]) for spec in specs], schema=writer._schema)
        pq.write_table(table, self._folder / "data.parquet", compression="snappy", use_dictionary=True)

        counts = {name: self._camera_counts(spec) for name, spec in writer._given.items() if spec.is_camera}
        stats = {name: counts[name].stats(unit=pixel_unit(writer._specs[name])) for name in counts}
        stats |= {spec.name: column_stats(columns[spec.name]) for spec in specs if spec.is_numeric}
        document = {
            EPISODE_INDEX: writer.num_episodes,
            "length": length,
            "tasks": tasks,
            "stats": as_json({name: stats[name] for name in writer._specs if name in stats}),
            "depth_units": {name: unit for name, unit in writer._depth_units.items() if name in counts},
            **self._close_videos(),
        }
        return document, manifest.pack_counts(counts)

    def _close_videos(self) -> dict[str, Any]:
        decoders, video_info = {}, {}
        for name, encoder in self._encoders.items():
            encoder.close()
            codec = DEPTH_CODEC if self._writer._specs[name].is_depth else self._writer._codec
            with av.open(str(encoder.path)) as container:
                decoders[name] = hashlib.sha256(decoder_header(container.streams.video[0])).hexdigest()[:16]
            video_info[name] = {**probe(encoder.path), **codec.describe()}
        return {"decoders": {**decoders, DATA_KIND: ""}, "video_info": video_info}

    def _column(self, spec: FeatureSpec) -> Any:
        rows = self._rows[spec.name]
        if spec.is_numeric:
            return np.stack(rows)
        if spec.is_image:
            ending = "tiff" if spec.is_depth else "png"
            return [
                {"bytes": row.result() if isinstance(row, Future) else row, "path": f"frame-{number:06d}.{ending}"}
                for number, row in enumerate(rows)
            ]
        if spec.name == LANGUAGE_PERSISTENT:  # one list for the whole episode, on every frame
            given: list[dict[str, Any]] = next((row for row in reversed(rows) if row), [])
            return [[language_row(row, persistent=True) for row in given]] * len(rows)
        if spec.is_language:
            return [[language_row(row, persistent=False) for row in events or []] for events in rows]
        return rows

    def _camera_counts(self, spec: FeatureSpec) -> ValueCounts:
        chosen = [self._counts[spec.name][number] for number in sampled_frames(self.length)]
        if spec.is_depth:
            return ValueCounts.of_depth(np.stack(chosen))
        return ValueCounts.of_bytes(np.sum(chosen, axis=0), frames=len(chosen))

    def abandon(self) -> None:
        for encoder in self._encoders.values():
            encoder.abandon()


def _image_bytes(pixels: np.ndarray) -> bytes:
    """One frame as PNG (colour) or TIFF (depth, uint16 or float32)."""
    buffer = io.BytesIO()
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    Image.fromarray(flat).save(buffer, format="PNG" if flat.dtype == np.uint8 else "TIFF")
    return buffer.getvalue()
