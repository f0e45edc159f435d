"""What one run is, settled on the driver: dataset, samples, order, shapes, statistics, batch arithmetic.

Everything that can be refused without a cluster is refused here. The result travels to the workers, which only build.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.checkpoint.save import check_format
from lerobot_ray.checkpoint.store import RunStore
from lerobot_ray.config.dataset import sample_order
from lerobot_ray.config.parallel import micro_batches, replicas_and_shards
from lerobot_ray.config.train import TrainConfig, global_batch
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import PRETRAINED_DIR
from lerobot_ray.core.types import OBS_STATE, TASK_INDEX, Stats
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.camera_cache import CacheSettings
from lerobot_ray.data.episodes import Selection, held_out_rows, select_episodes, split_episodes
from lerobot_ray.data.metadata import DatasetMetadata, check_files, open_metadata, stats_of_samples
from lerobot_ray.data.order import Order, build_order
from lerobot_ray.data.sample import SampleSpec
from lerobot_ray.data.storage import LocalStorage, open_storage
from lerobot_ray.data.windows import delta_offsets
from lerobot_ray.hub.elsewhere import fetch, is_fetched
from lerobot_ray.hub.preflight import PushPlan
from lerobot_ray.on_ray.rollout_check import check_rollouts
from lerobot_ray.on_ray.weighting import plan_weights
from lerobot_ray.policies.adapters.plan import AdapterPlan, AdapterSize, adapter_size, plan_adapter, policy_of_run
from lerobot_ray.policies.features import set_features
from lerobot_ray.processing import Pipeline, processors_for_run, with_imagenet_stats
from lerobot_ray.tracking.build import TrackingPlan, plan_tracking

logger = logging.getLogger(__name__)

WINDOWS_CACHED = 2.5
"""Of the `shards` order: the window being trained on, the next one being read ahead, and some slack."""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How a step is shared out. The global batch is fixed for the run; the rest follows from the number of workers."""

    global_batch: int
    micro_batch: int
    accumulation_steps: int


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """One run, ready to be started on any number of workers. Picklable."""

    config: TrainConfig
    """With absolute paths and the policy's features filled in."""
    output_dir: Path
    seed: int
    spec: SampleSpec
    order: Order
    global_batch: int
    preprocessor: Pipeline
    postprocessor: Pipeline
    tracking: TrackingPlan
    stats: Stats | None
    held_out: SampleSpec | None = None
    held_out_ids: np.ndarray | None = None
    """Sample ids of `held_out` to evaluate on."""
    resume_from: Path | None = None
    """The checkpoint this run continues, unless it has written a newer one itself."""
    adapter: AdapterPlan | None = None
    """What is trained in place of the whole policy."""
    adapter_size: AdapterSize | None = None
    not_ours: tuple[tuple[str, int], ...] = ()
    """Checkpoints in the output folder that this run does not continue: (name, time of its manifest)."""
    stop_at: int | None = None
    """Leave after this step, with a checkpoint, although `config.steps` are more: the schedule is that of all steps."""
    keeps_own_rates: bool = False
    """Of a checkpoint it continues, take weights and moments, but not the optimizer's settings: they are this run's."""
    runs_at_once: int = 1
    """Runs like this one that share the cluster."""
    most_cpus: float = 0.0
    """CPUs of the cluster when it has grown to its limits, as far as the driver knows."""
    asks_every_s: float = 2.0
    """How often, about, its workers ask whether to stop."""
    pretrained: Path | None = None
    """The folder on the driver with the policy this run starts from; other nodes fetch their own copy."""
    push: PushPlan | None = None
    """What goes to the Hub."""
    store: RunStore | None = None
    """Where in an object store the run is copied to."""

    @property
    def num_samples(self) -> int:
        return self.order.num_samples

    @property
    def publishes(self) -> bool:
        """Whether the finished policy goes to the Hub, so that the last step is saved in any case."""
        return self.push is not None and self.push.policy

    def batching(self, world_size: int) -> Batching:
        """ConfigError when the global batch cannot be shared out evenly."""
        if self.global_batch % world_size:
            raise ConfigError(
                f"a global batch of {self.global_batch} cannot be shared out evenly over {world_size} workers."
            )
        micro, accumulation = micro_batches(self.global_batch // world_size, largest=self.config.batch_size)
        return Batching(global_batch=self.global_batch, micro_batch=micro, accumulation_steps=accumulation)


def open_dataset(config: TrainConfig) -> DatasetMetadata:
    """The dataset's metadata; DatasetError or StorageError when it cannot be read."""
    dataset = config.dataset
    budget = None if dataset.files_gb is None else int(dataset.files_gb * 1e9)
    storage = open_storage(dataset.repo_id, root=dataset.root, revision=dataset.revision, files_budget_bytes=budget)
    return open_metadata(dataset.repo_id, storage=storage)


def plan_run(
    config: TrainConfig,
    metadata: DatasetMetadata,
    *,
    world_size: int,
    device: str,
    resume_from: Path | None = None,
    not_ours: tuple[tuple[str, int], ...] = (),
) -> RunSetup:
    """The setup of a run on `world_size` workers that train on `device`; raises what cannot work."""
    assert config.output_dir is not None
    output_dir = config.output_dir
    refuse_what_is_not_built(config)
    check_format(config.checkpoint_format)
    replicas_and_shards(config.parallelism, world_size)
    seed = config.seed or 0
    config = _with_features(config, metadata, device)
    policy: Any = config.policy
    base = None if resume_from or not policy.pretrained_path else local_policy(policy)
    begun = policy_at(policy, base) if base is not None and policy.use_peft else policy
    adapter = plan_adapter(begun, config.peft, checkpoint=resume_from and resume_from / PRETRAINED_DIR)
    if adapter is not None and config.peft is not None and base is not None:
        refuse_base_in_checkpoint(base, str(policy.pretrained_path))
    size = None
    if adapter is not None:
        size = adapter_size(policy, adapter)
        config = dataclasses.replace(config, policy=policy_of_run(policy, adapter))
    offsets = delta_offsets(
        metadata.features, policy.observation_delta_indices, policy.action_delta_indices, policy.reward_delta_indices
    )
    selection, held_out = _selections(config, metadata, int(getattr(policy, "drop_n_last_frames", 0) or 0))
    if isinstance(metadata.storage, LocalStorage):  # elsewhere files are fetched as they are needed
        for part in (selection, held_out):
            if part is not None:
                check_files(metadata, part.episodes)
    batch = global_batch(config, world_size)
    if batch > selection.num_samples:
        raise ConfigError(
            f"a global batch of {batch} is more than the {selection.num_samples} samples there are to train on. "
            f"Lower --batch_size (now {config.batch_size} on each of {world_size} workers) or --global_batch_size."
        )
    order: Order = build_order(
        sample_order(config.dataset),
        num_samples=selection.num_samples,
        seed=seed,
        episode_lengths=selection.lengths,
        shard_frames=config.dataset.shard_frames,
        window_shards=config.dataset.window_shards,
    )
    if config.dataset.on_bad_episode == "skip":
        order = SkippingOrder(order, selection)
    spec = SampleSpec(
        metadata=metadata,
        selection=selection,
        offsets=offsets,
        features=_features_read(config, metadata),
        transport=config.dataset.transport,
        tolerance_s=config.tolerance_s,
        depth_output_unit=config.dataset.depth_output_unit,
        cache=_cache(config),
        weights=plan_weights(config, metadata),
    )
    spec = _with_window_cache(spec, config)
    stats = _stats(config, metadata)
    preprocessor, postprocessor = processors_for_run(
        policy,
        stats,
        pretrained_path=resume_from / PRETRAINED_DIR if resume_from else base,
        resume=resume_from is not None,
        rename_map=config.rename_map or None,
        device=device,
    )
    check_rollouts(config, getattr(preprocessor.step("rename_observations_processor"), "rename_map", None) or {})
    return RunSetup(
        config=config,
        output_dir=output_dir,
        seed=seed,
        spec=spec,
        order=order,
        global_batch=batch,
        preprocessor=preprocessor,
        postprocessor=postprocessor,
        tracking=plan_tracking(config),
        stats=stats,
        held_out=dataclasses.replace(spec, selection=held_out, cache=None, weights=None)
        if held_out is not None
        else None,
        held_out_ids=_held_out_ids(config, metadata, held_out) if held_out is not None else None,
        resume_from=resume_from,
        adapter=adapter,
        adapter_size=size,
        not_ours=not_ours,
        pretrained=base,
    )


def local_policy(policy: Any) -> Path:
    """The folder of the policy that `pretrained_path` names, fetched if it is on the Hub; checks nothing in it."""
    given = Path(policy.pretrained_path).expanduser()
    if given.exists() or given.is_absolute() or policy.pretrained_path.startswith(("./", "../")):
        return given
    return fetch(policy.pretrained_path, revision=policy.pretrained_revision, what="policy")


def policy_at(policy: Any, folder: Path) -> Any:
    """The same policy config, its weights in a folder."""
    policy = copy.deepcopy(policy)
    policy.pretrained_path, policy.pretrained_revision = str(folder), None
    return policy


def refuse_base_in_checkpoint(base: Path, name: str) -> None:
    """ConfigError for an adapter whose base is inside a checkpoint elsewhere, where no reader of it would look."""
    if is_fetched(base) and base.name == PRETRAINED_DIR:
        raise ConfigError(
            f"the base of an adapter is named by a repository that has it at its root, and {name} has it in a "
            "checkpoint. Publish it first (python -m lerobot_ray.push RUN --publish), or give a local folder."
        )


def refuse_what_is_not_built(config: TrainConfig) -> None:
    """ConfigError for settings that are described but not trained with yet, rather than silence."""
    if config.job.target not in (None, "local"):
        raise ConfigError(f"job.target={config.job.target}: remote jobs are not started by this release yet.")


def _with_features(config: TrainConfig, metadata: DatasetMetadata, device: str) -> TrainConfig:
    policy = copy.deepcopy(config.policy)
    policy.device = device  # type: ignore[union-attr]
    set_features(policy, metadata.features, rename_map=config.rename_map, dataset=metadata.repo_id)
    return dataclasses.replace(config, policy=policy)


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


def _stats(config: TrainConfig, metadata: DatasetMetadata) -> Stats | None:
    stats = stats_of_samples(metadata, depth_output_unit=config.dataset.depth_output_unit)
    if config.dataset.use_imagenet_stats:
        colour = [key for key in metadata.camera_keys if not metadata.features[key].is_depth]
        stats = with_imagenet_stats(stats, colour)
    return stats


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
