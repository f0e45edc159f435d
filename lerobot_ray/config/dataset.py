"""What is trained on: the dataset, the part of it, the order of its samples, and how its frames travel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lerobot_ray.config.marks import NEWER, OURS, unused
from lerobot_ray.core.errors import ConfigError

SHARD_FRAMES = 256
WINDOW_SHARDS = 16
"""Together 4096 frames from 16 places: well mixed, and two windows of two 640x480 cameras are 7.5 GB."""


@dataclass(frozen=True)
class ImageTransformConfig:
    """One image transform and how often it is drawn."""

    weight: float = 1.0
    """How often it is drawn, relative to the others; 0 or less turns it off."""
    type: str = "Identity"
    """Its name: ColorJitter, SharpnessJitter, RandomAffine, …"""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Its arguments, e.g. {"brightness": [0.8, 1.2]}."""


def default_transforms() -> dict[str, ImageTransformConfig]:
    """LeRobot's table, in its order."""
    return {
        "brightness": ImageTransformConfig(type="ColorJitter", kwargs={"brightness": [0.8, 1.2]}),
        "contrast": ImageTransformConfig(type="ColorJitter", kwargs={"contrast": [0.8, 1.2]}),
        "saturation": ImageTransformConfig(type="ColorJitter", kwargs={"saturation": [0.5, 1.5]}),
        "hue": ImageTransformConfig(type="ColorJitter", kwargs={"hue": [-0.05, 0.05]}),
        "sharpness": ImageTransformConfig(type="SharpnessJitter", kwargs={"sharpness": [0.5, 1.5]}),
        "affine": ImageTransformConfig(type="RandomAffine", kwargs={"degrees": [-5.0, 5.0], "translate": [0.05, 0.05]}),
    }


@dataclass(frozen=True)
class ImageTransformsConfig:
    """Augmentation of camera frames. Draws are keyed by a sample's place in the stream, so they repeat exactly."""

    enable: bool = False
    """Whether frames are augmented in training. Held-out data never is."""
    max_num_transforms: int = 3
    """How many of the table are drawn for each camera of each sample."""
    random_order: bool = False
    """Apply the drawn ones in random order, rather than in the table's."""
    tfs: dict[str, ImageTransformConfig] = field(default_factory=default_transforms)
    """The table: name -> {weight, type, kwargs}. Given as a whole, as JSON or YAML."""

    def __post_init__(self) -> None:
        if self.max_num_transforms < 0:
            raise ConfigError(f"dataset.image_transforms.max_num_transforms={self.max_num_transforms} is negative.")


@dataclass(frozen=True)
class DatasetConfig:
    """Which dataset, which part of it, in what order."""

    repo_id: str
    """Dataset repository on the Hub, `user/name`, or the name of a dataset under `root`."""
    repo_type: str = "dataset"
    """Only `dataset` here."""
    root: str | None = None
    """Folder or object-store URL (s3://…, gs://…) that holds the dataset; null: LeRobot's cache, then the Hub."""
    episodes: list[int] | None = None
    """Train on these episode numbers only, e.g. [0,1,5]; null: all."""
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)
    revision: str | None = None
    """Branch, tag or commit on the Hub; null: the tag of the format version."""
    use_imagenet_stats: bool = True
    """Normalise colour cameras with ImageNet's mean and std in place of the dataset's."""
    video_backend: str = field(
        default="pyav",
        metadata=unused("frames are decoded by PyAV in decode actors; the choice is only kept for LeRobot"),
    )
    """Which decoder LeRobot uses when it continues this run: pyav or torchcodec."""
    return_uint8: bool = field(
        default=False,
        metadata=unused("in training, frames always travel as uint8 and become float on the training device"),
    )
    """Part of LeRobot's data loader."""
    depth_output_unit: Literal["mm", "m"] = "mm"
    """Unit of depth frames."""
    streaming: bool = False
    """The dataset is far away and larger than the disk: `order` becomes `shards` unless given. Files are fetched as
    they are needed in any case."""
    eval_split: float = 0.0
    """Share of the episodes of each task held out for `eval_steps`, from 0 up to but without 1."""
    exclude_episodes: list[int] | None = field(default=None, metadata=NEWER)
    """Leave out these episode numbers, e.g. those that `lerobot_ray.dataset validate` found broken."""
    order: Literal["frames", "shards", "lerobot", "sequential"] | None = field(default=None, metadata=OURS)
    """Order of samples. frames: a uniform shuffle of every epoch. shards: a shuffle that reads files in long runs, for
    sequential decoding and far storage. lerobot: the very order of `lerobot-train`. sequential: none. null: frames."""
    shard_frames: int = field(default=SHARD_FRAMES, metadata=OURS)
    """Frames in a shard, about: one run of consecutive frames. Only for order=shards."""
    window_shards: int = field(default=WINDOW_SHARDS, metadata=OURS)
    """Shards whose frames are mixed with one another; two such windows are kept decoded in memory. Only for
    order=shards."""
    cache: Literal["none", "memory", "disk"] = field(default="none", metadata=OURS)
    """Keep decoded frames for later epochs, once per node: in shared memory, on disk, or not at all."""
    cache_gb: float = field(default=8.0, metadata=OURS)
    """Most that the cache may hold on a node, in 10^9 bytes."""
    cache_dir: str | None = field(default=None, metadata=OURS)
    """Folder of the disk cache on every node; null: one under the node's temporary folder."""
    files_gb: float | None = field(default=None, metadata=OURS)
    """Most that files fetched from the Hub or an object store may take on a node, in 10^9 bytes; the longest unused go
    first. null: LEROBOT_RAY_FILES_BUDGET_BYTES, or no limit."""
    on_bad_episode: Literal["stop", "skip"] = field(default="stop", metadata=OURS)
    """When a frame cannot be decoded: stop and name it, or drop its episode on all ranks alike and say so."""
    transport: Literal["auto", "yuv420", "rgb"] = field(default="auto", metadata=OURS)
    """How frames travel to the training process: yuv420 is half the bytes, colours are converted on its device. auto:
    yuv420 where the video is stored so, rgb otherwise."""

    def __post_init__(self) -> None:
        if not self.repo_id:
            raise ConfigError("dataset.repo_id is empty. Give user/name, or any name together with dataset.root.")
        if self.repo_type != "dataset":
            raise ConfigError(
                f"dataset.repo_type={self.repo_type} is not read here, only dataset repositories are. "
                "For data in an object store give its URL as dataset.root."
            )
        for name in ("episodes", "exclude_episodes"):
            _check_episodes(name, getattr(self, name))
        if not 0.0 <= self.eval_split < 1.0:
            raise ConfigError(f"dataset.eval_split={self.eval_split:g} is not in [0, 1). 0.1 holds out a tenth.")
        for name in ("shard_frames", "window_shards"):
            if getattr(self, name) < 1:
                raise ConfigError(f"dataset.{name}={getattr(self, name)} must be at least 1.")
        if self.cache_gb <= 0:
            raise ConfigError(
                f"dataset.cache_gb={self.cache_gb:g} must be more than 0. To turn it off: dataset.cache=none."
            )
        if self.files_gb is not None and self.files_gb <= 0:
            raise ConfigError(f"dataset.files_gb={self.files_gb:g} must be more than 0, or null for no limit.")


def sample_order(dataset: DatasetConfig) -> str:
    """The name of the order this dataset is read in."""
    return dataset.order or ("shards" if dataset.streaming else "frames")


def _check_episodes(name: str, episodes: list[int] | None) -> None:
    negative = [episode for episode in episodes or [] if episode < 0]
    if negative:
        raise ConfigError(f"dataset.{name} has {negative[0]}; episodes are counted from 0.")
    if episodes is not None and len(set(episodes)) < len(episodes):
        twice = next(episode for i, episode in enumerate(episodes) if episode in episodes[:i])
        raise ConfigError(f"dataset.{name} names episode {twice} twice.")
    if name == "episodes" and episodes == []:
        raise ConfigError("dataset.episodes is an empty list: nothing to train on. null means all episodes.")
