"""What a dataset looks like: the frames and curves of some episodes, and a summary of all of them.

This collects; `preview_page` draws a web page from it and `preview_sheet` a picture. Only the wanted frames are decoded
and only the files of the wanted episodes are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import ACTION, INDEX_FEATURES, OBS_STATE, Stats
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.images import decode_image
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.recount import column_array
from lerobot_ray.data.video import VideoReader

FRAMES_PER_EPISODE = 8
EPISODES_SHOWN = 4
MAX_CURVES = 24
"""Components of one feature that get a curve; a page with hundreds helps nobody."""

_DEPTH_COLOURS = np.array([[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], np.float64)


@dataclass(frozen=True)
class Curve:
    """One component of a feature over an episode."""

    feature: str
    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """Curves that belong into one picture, such as a joint's measured and commanded position."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class EpisodeView:
    """What is shown of one episode."""

    number: int
    tasks: list[str]
    length: int
    duration_s: float
    frame_numbers: np.ndarray
    """Which frames the sheets show."""
    sheets: dict[str, list[np.ndarray]]
    """Per camera, those frames as uint8 (H, W, 3)."""
    panels: list[Panel]


@dataclass(frozen=True)
class Preview:
    """What is shown of a dataset."""

    repo_id: str
    robot_type: str | None
    fps: float
    features: dict[str, FeatureSpec]
    lengths: np.ndarray
    task_counts: list[tuple[str, int]]
    """Tasks with their number of episodes, most first."""
    stats: Stats | None
    episodes: list[EpisodeView] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps


def collect_preview(
    metadata: DatasetMetadata, *, episodes: Sequence[int] | None = None, frames: int = FRAMES_PER_EPISODE
) -> Preview:
    """Reads what a preview shows: the given episodes, by default some spread over the dataset."""
    total = metadata.total_episodes
    if episodes is None:
        wanted = np.unique(np.linspace(0, max(total - 1, 0), min(EPISODES_SHOWN, total)).round().astype(int)).tolist()
    else:
        wanted = list(episodes)
        if outside := [number for number in wanted if not 0 <= number < total]:
            raise DatasetError(f"{metadata.repo_id} has episodes 0 to {total - 1}; there is no episode {outside[0]}.")
    counts = Counter(metadata.episodes.first_task)
    return Preview(
        repo_id=metadata.repo_id,
        robot_type=metadata.robot_type,
        fps=metadata.fps,
        features=metadata.features,
        lengths=metadata.episodes.length,
        task_counts=counts.most_common(),
        stats=metadata.stats,
        episodes=[_episode_view(metadata, number, frames) for number in wanted],
    )


def _episode_view(metadata: DatasetMetadata, number: int, frames: int) -> EpisodeView:
    table = metadata.episodes
    length = int(table.length[number])
    shown = np.unique(np.linspace(0, max(length - 1, 0), min(frames, length)).round().astype(np.int64))
    columns = [spec for spec in metadata.features.values() if spec.is_numeric and spec.name not in INDEX_FEATURES]
    return EpisodeView(
        number=number,
        tasks=table.tasks(number),
        length=length,
        duration_s=length / metadata.fps,
        frame_numbers=shown,
        sheets={key: list(_frames(metadata, key, number, shown)) for key in metadata.camera_keys},
        panels=panels_of({spec.name: _values(metadata, spec, number) for spec in columns}, metadata.features),
    )


def _rows(metadata: DatasetMetadata, column: str, number: int) -> Any:
    """A column's rows of one episode, from the row groups that hold them."""
    table = metadata.episodes
    at = (int(table.data_chunk[number]), int(table.data_file[number]))
    files = table.data_files
    start = int(table.from_index[number] - files.start[(files.chunk == at[0]) & (files.file == at[1])][0])
    stop = start + int(table.length[number])
    file = pq.ParquetFile(metadata.storage.local(metadata.data_path(*at)))
    ends = np.cumsum([file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)])
    groups = np.flatnonzero((ends > start) & (np.concatenate([[0], ends[:-1]]) < stop))
    first = int(ends[groups[0] - 1]) if groups[0] else 0
    return file.read_row_groups(groups.tolist(), columns=[column])[column].slice(start - first, stop - start)


def _values(metadata: DatasetMetadata, spec: FeatureSpec, number: int) -> np.ndarray:
    """A number column of one episode as (frames, components)."""
    values = column_array(_rows(metadata, spec.name, number), spec, where=metadata.repo_id)
    return values.reshape(len(values), -1).astype(np.float64)


def _frames(metadata: DatasetMetadata, key: str, number: int, frames: np.ndarray) -> Iterator[np.ndarray]:
    spec = metadata.features[key]
    if spec.is_image:
        for struct in _rows(metadata, key, number).take(frames).to_pylist():
            pixels = decode_image(struct, depth=spec.is_depth)
            yield _depth_picture(pixels[..., 0]) if spec.is_depth else _colour_picture(pixels)
        return
    places = metadata.episodes.video[key]
    path = metadata.storage.local(metadata.video_path(key, int(places.chunk[number]), int(places.file[number])))
    times_s = places.from_s[number] + frames / metadata.fps
    with VideoReader(pixel_format="gray12le" if spec.is_depth else "rgb24") as reader:
        pictures = reader.read(path, times_s, tolerance_s=0.5 / metadata.fps)
    yield from (_depth_picture(codes) if spec.is_depth else codes for codes in pictures)


def _colour_picture(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def _depth_picture(depth: np.ndarray) -> np.ndarray:
    """Depth, in any unit, from near (dark) to far (bright) within the picture."""
    values = np.nan_to_num(depth.astype(np.float64))
    low, high = np.quantile(values, [0.01, 0.99])
    place = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_DEPTH_COLOURS) - 1)
    steps = np.arange(len(_DEPTH_COLOURS))
    return np.stack([np.interp(place, steps, _DEPTH_COLOURS[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


def component_names(spec: FeatureSpec) -> list[str]:
    """A name per component, from whatever nesting info.json has, numbers where it has none."""
    flat = list(_flatten(spec.names))
    size = int(np.prod(spec.shape))
    if len(flat) == size:
        return flat
    return [""] if size == 1 else [str(number) for number in range(size)]


def _flatten(names: Any) -> Iterator[str]:
    if isinstance(names, dict):
        for value in names.values():
            yield from _flatten(value)
    elif isinstance(names, (list, tuple)):
        for value in names:
            yield from _flatten(value)
    elif names is not None:
        yield str(names)


def panels_of(values: dict[str, np.ndarray], features: dict[str, FeatureSpec]) -> list[Panel]:
    """Which curves share a picture: the state and the action of the same name, everything else alone."""
    curves = {
        name: [
            Curve(name, component, table[:, place])
            for place, component in enumerate(component_names(features[name])[:MAX_CURVES])
        ]
        for name, table in values.items()
    }
    state, action = curves.pop(OBS_STATE, []), curves.pop(ACTION, [])
    panels = []
    by_name = {curve.name: curve for curve in action}
    for curve in state:
        partner = by_name.pop(curve.name, None)
        panels.append(Panel(curve.name or OBS_STATE, (curve, partner) if partner else (curve,)))
    panels += [Panel(f"action · {curve.name}" if curve.name else ACTION, (curve,)) for curve in by_name.values()]
    for name, rest in curves.items():
        panels += [Panel(f"{name} · {curve.name}" if curve.name else name, (curve,)) for curve in rest]
    return panels
