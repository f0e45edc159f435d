"""The episode being recorded: numbers in memory, camera frames in encoders, images as PNG or TIFF.

`add` takes checked frames; `close` completes the episode's files in its folder and says what is in them. Statistics are
taken from the frames as they came, before any coding loss.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import EPISODE_INDEX, FRAME_INDEX, INDEX, TASK_INDEX, TIMESTAMP
from lerobot_ray.data.depth import depth_coding
from lerobot_ray.data.encode import DEPTH_CODEC, EpisodeEncoder, VideoCodec, decoder_header, probe
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.recording import DATA_KIND
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


@dataclass(frozen=True)
class Format:
    """What all episodes of a recording have in common."""

    repo_id: str
    fps: int
    codec: VideoCodec
    specs: dict[str, FeatureSpec]
    """Every feature in order, the index features last."""
    depth_units: dict[str, str]
    """"m" or "mm" per depth camera, from its first frame on; filled while recording."""
    images: ThreadPoolExecutor
    """Where PNG and TIFF are made."""

    @property
    def given(self) -> dict[str, FeatureSpec]:
        """The features that frames hold."""
        return {name: spec for name, spec in self.specs.items() if name not in INDEX_ENTRIES}


class OpenEpisode:
    """One episode under way. `number` and `first_row` are its places in the dataset."""

    def __init__(self, form: Format, folder: Path, *, number: int, first_row: int) -> None:
        self.length = 0
        self._form, self._folder, self._number, self._first_row = form, folder, number, first_row
        self._given = form.given
        self._rows: dict[str, list[Any]] = {name: [] for name, spec in self._given.items() if not spec.is_video}
        self._tasks: list[str] = []
        self._counts: dict[str, list[np.ndarray]] = {name: [] for name, spec in self._given.items() if spec.is_camera}
        self._encoders: dict[str, EpisodeEncoder] = {}

    def add(self, frame: Mapping[str, Any], task: str) -> None:
        """Takes a frame that `check_frame` let pass."""
        for name, spec in self._given.items():
            if spec.is_depth:  # before anything is added: a refused frame leaves the episode as it was
                self._check_depth_unit(spec, frame[name])
        for name, spec in self._given.items():
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
            self._rows[spec.name].append(self._form.images.submit(_image_bytes, pixels))
        else:
            if spec.is_depth:  # as the dataset codes depth already, if it is being added to
                pixels = depth_coding({**spec.info, "depth_unit": self._form.depth_units[spec.name]}).encode(pixels)
            self._encoder(spec).add(pixels)

    def _check_depth_unit(self, spec: FeatureSpec, pixels: np.ndarray) -> None:
        unit = "m" if pixels.dtype.kind == "f" else "mm"
        expected = self._form.depth_units.setdefault(spec.name, unit)
        if unit != expected:
            raise DatasetError(
                f"{self._form.repo_id}: depth frames of {spec.name} came as {pixels.dtype} ({unit}), but the dataset "
                f"holds them in {expected}. Use uint16 millimetres or float32 metres throughout."
            )

    def _encoder(self, spec: FeatureSpec) -> EpisodeEncoder:
        if spec.name not in self._encoders:
            height, width, _ = spec.shape
            self._encoders[spec.name] = EpisodeEncoder(
                self._folder / f"{spec.name}.mp4",
                codec=DEPTH_CODEC if spec.is_depth else self._form.codec,
                fps=self._form.fps,
                height=height,
                width=width,
            )
        return self._encoders[spec.name]

    def close(self, task_numbers: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, ValueCounts]]:
        """Completes the files; the episode's document, and the pixel counts of its cameras.

        Tasks that `task_numbers` does not have are numbered on in their order.
        """
        form, length = self._form, self.length
        tasks = list(dict.fromkeys(self._tasks))
        numbers = dict(task_numbers)
        for task in tasks:
            numbers.setdefault(task, len(numbers))
        columns: dict[str, Any] = {
            **{name: self._column(self._given[name]) for name in self._rows},
            TIMESTAMP: (np.arange(length) / form.fps).astype(np.float32),
            FRAME_INDEX: np.arange(length),
            EPISODE_INDEX: np.full(length, self._number),
            INDEX: np.arange(length) + self._first_row,
            TASK_INDEX: np.array([numbers[task] for task in self._tasks]),
        }
        specs = [spec for spec in form.specs.values() if not spec.is_video]
        arrays = [column(spec, columns[spec.name]) for spec in specs]
        table = pa.Table.from_arrays(arrays, schema=table_schema(specs))
        pq.write_table(table, self._folder / "data.parquet", compression="snappy", use_dictionary=True)

        counts = {name: self._camera_counts(spec) for name, spec in self._given.items() if spec.is_camera}
        stats = {name: counts[name].stats(unit=pixel_unit(form.specs[name])) for name in counts}
        stats |= {spec.name: column_stats(columns[spec.name]) for spec in specs if spec.is_numeric}
        document = {
            EPISODE_INDEX: self._number,
            "length": length,
            "tasks": tasks,
            "stats": as_json({name: stats[name] for name in form.specs if name in stats}),
            "depth_units": {name: unit for name, unit in form.depth_units.items() if name in counts},
            **self._close_videos(),
        }
        return document, counts

    def _close_videos(self) -> dict[str, Any]:
        decoders, video_info = {}, {}
        for name, encoder in self._encoders.items():
            encoder.close()
            codec = DEPTH_CODEC if self._form.specs[name].is_depth else self._form.codec
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
            return [{"bytes": row.result(), "path": f"frame-{number:06d}.{ending}"} for number, row in enumerate(rows)]
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
        """Stops the encoders and removes their files."""
        for encoder in self._encoders.values():
            encoder.abandon()


def _image_bytes(pixels: np.ndarray) -> bytes:
    """One frame as PNG (colour) or TIFF (depth, uint16 or float32)."""
    buffer = io.BytesIO()
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    Image.fromarray(flat).save(buffer, format="PNG" if flat.dtype == np.uint8 else "TIFF")
    return buffer.getvalue()
