"""What a run trains on: the samples of its dataset, their order, how each is read, and those held out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.config.dataset import sample_order
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.types import OBS_STATE, TASK_INDEX, Stats
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.camera_cache import CacheSettings
from lerobot_ray.data.episodes import Selection, held_out_rows, select_episodes, split_episodes
from lerobot_ray.data.metadata import DatasetMetadata, check_files, open_metadata, stats_of_samples
from lerobot_ray.data.order import Order, build_order
from lerobot_ray.data.sample import SampleSpec
from lerobot_ray.data.storage import LocalStorage, open_storage
from lerobot_ray.data.windows import delta_offsets
from lerobot_ray.on_ray.weighting import plan_weights
from lerobot_ray.processing import with_imagenet_stats

WINDOWS_CACHED = 2.5
"""Of the `shards` order: the window being trained on, the next one being read ahead, and some slack."""


@dataclass(frozen=True, kw_only=True)
class RunSamples:
    """Samples of a run. Picklable."""

    spec: SampleSpec
    order: Order
    held_out: SampleSpec | None = None
    held_out_ids: np.ndarray | None = None
    """Sample ids of `held_out` to evaluate on."""


def open_dataset(config: TrainConfig) -> DatasetMetadata:
    """The dataset's metadata; DatasetError or StorageError when it cannot be read."""
    dataset = config.dataset
    budget = None if dataset.files_gb is None else int(dataset.files_gb * 1e9)
    storage = open_storage(dataset.repo_id, root=dataset.root, revision=dataset.revision, files_budget_bytes=budget)
    return open_metadata(dataset.repo_id, storage=storage)


def plan_samples(config: TrainConfig, metadata: DatasetMetadata, *, seed: int) -> RunSamples:
    """What `config` selects, its policy's features filled in; DatasetError when files of it are missing."""
    policy: Any = config.policy
    selection, held_out = _selections(config, metadata, int(getattr(policy, "drop_n_last_frames", 0) or 0))
    if isinstance(metadata.storage, LocalStorage):  # elsewhere files are fetched as they are needed
        for part in (selection, held_out):
            if part is not None:
                check_files(metadata, part.episodes)
    spec = SampleSpec(
        metadata=metadata,
        selection=selection,
        offsets=delta_offsets(
            metadata.features,
            policy.observation_delta_indices,
            policy.action_delta_indices,
            policy.reward_delta_indices,
        ),
        features=_features_read(config, metadata),
        transport=config.dataset.transport,
        tolerance_s=config.tolerance_s,
        depth_output_unit=config.dataset.depth_output_unit,
        cache=_cache(config),
        weights=plan_weights(config, metadata),
    )
    spec = _with_window_cache(spec, config)
    return RunSamples(
        spec=spec,
        order=_order(config, selection, seed=seed),
        held_out=dataclasses.replace(spec, selection=held_out, cache=None, weights=None) if held_out else None,
        held_out_ids=_held_out_ids(config, metadata, held_out) if held_out is not None else None,
    )


def training_stats(config: TrainConfig, metadata: DatasetMetadata) -> Stats | None:
    """What samples are normalised by."""
    stats = stats_of_samples(metadata, depth_output_unit=config.dataset.depth_output_unit)
    if config.dataset.use_imagenet_stats:
        colour = [key for key in metadata.camera_keys if not metadata.features[key].is_depth]
        stats = with_imagenet_stats(stats, colour)
    return stats


def _order(config: TrainConfig, selection: Selection, *, seed: int) -> Order:
    order: Order = build_order(
        sample_order(config.dataset),
        num_samples=selection.num_samples,
        seed=seed,
        episode_lengths=selection.lengths,
        shard_frames=config.dataset.shard_frames,
        window_shards=config.dataset.window_shards,
    )
    return SkippingOrder(order, selection) if config.dataset.on_bad_episode == "skip" else order


def _selections(
    config: TrainConfig, metadata: DatasetMetadata, drop_n_last_frames: int
) -> tuple[Selection, Selection | None]:
    """What is trained on, and what is held out for the held-out loss."""
    dataset, table = config.dataset, metadata.episodes
    chosen = select_episodes(table, episodes=dataset.episodes, exclude_episodes=dataset.exclude_episodes)
    if dataset.eval_split == 0:
        return select_episodes(table, episodes=chosen.episodes, drop_n_last_frames=drop_n_last_frames), None
    train, held_out = split_episodes(table, chosen, dataset.eval_split)
    selection = select_episodes(table, episodes=train, drop_n_last_frames=drop_n_last_frames)
    return selection, select_episodes(table, episodes=held_out) if config.eval_steps else None


def _held_out_ids(config: TrainConfig, metadata: DatasetMetadata, held_out: Selection) -> np.ndarray:
    """Every frame of the held-out episodes, or the first few of each task."""
    from lerobot_ray.data.frames import FrameTable

    def task_index(rows: np.ndarray) -> np.ndarray:
        return FrameTable(metadata).column(TASK_INDEX, rows).reshape(-1)

    rows = held_out_rows(metadata.episodes, held_out, max_eval_samples=config.max_eval_samples, task_index=task_index)
    position = np.searchsorted(held_out.first_row, rows, side="right") - 1
    return held_out.starts[position] + rows - held_out.first_row[position]


def _features_read(config: TrainConfig, metadata: DatasetMetadata) -> tuple[str, ...]:
    """The features a batch needs: the policy's, under the dataset's names, and whatever is no camera."""
    renamed = {new: old for old, new in config.rename_map.items()}
    wanted = {renamed.get(key, key) for key in (config.policy.input_features or {})} | {OBS_STATE}  # type: ignore[union-attr]
    return tuple(name for name, spec in metadata.features.items() if not spec.is_camera or name in wanted)


def _cache(config: TrainConfig) -> CacheSettings | None:
    dataset = config.dataset
    if dataset.cache == "none":
        return None
    directory = Path(dataset.cache_dir).absolute() if dataset.cache_dir else None
    return CacheSettings(dataset.cache, int(dataset.cache_gb * 1e9), directory)


def _with_window_cache(spec: SampleSpec, config: TrainConfig) -> SampleSpec:
    """For the `shards` order: room for the frames of the windows in use, so that files are read in long runs."""
    if spec.cache is not None or sample_order(config.dataset) != "shards":
        return spec
    cameras = [feature for feature in spec.specs if feature.is_camera]
    if not cameras:
        return spec
    frame_bytes = dataclasses.replace(spec, offsets={}, features=tuple(camera.name for camera in cameras)).sample_bytes
    frames = min(config.dataset.window_shards * config.dataset.shard_frames * WINDOWS_CACHED, spec.selection.num_frames)
    budget = min(int(frames * frame_bytes), int(config.dataset.cache_gb * 1e9))
    return dataclasses.replace(spec, cache=CacheSettings("memory", budget, eviction="lru"))
