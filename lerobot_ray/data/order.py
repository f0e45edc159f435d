"""Which sample comes at which place of the endless training stream. Pure: a function of (seed, stream index).

Stream index q is place `q % N` of epoch `q // N`, and an order says which of the N samples comes there. Every order is
a permutation within an epoch; nothing is drawn, stored or synchronised, so any rank may ask for any place at any time.

    frames       all frames shuffled over the whole dataset; no memory, any N      (the default)
    shards       frames shuffled within a moving window of neighbouring episodes   (`shard_order`: locality)
    lerobot      the order of lerobot-train 0.6.1; one permutation of N in memory
    sequential   storage order, every epoch alike

A checkpoint stores `order.state()`. An order whose results change gets a new `version`, and the old state is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np

from lerobot_ray.core.errors import CheckpointError, ConfigError, DatasetError, nearest
from lerobot_ray.data.permutation import FRAMES, distinct_values, permute, random_words
from lerobot_ray.data.shard_order import SHARD_FRAMES, WINDOW_SHARDS, ShardOrder

ORDERS = ("frames", "shards", "lerobot", "sequential")


class Order(Protocol):
    """A permutation of [0, num_samples) for every epoch. Picklable, cheap to ship, safe to share between threads."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def samples(self, q: np.ndarray) -> np.ndarray:
        """Sample ids at stream indices `q` (int64, any shape, any epochs)."""

    def storage_places(self, q: np.ndarray) -> np.ndarray:
        """Sort keys, one per stream index: ranks divide a global batch in this order, so that each reads few files."""

    def state(self) -> dict[str, Any]:
        """What the order depends on, as plain JSON: what a checkpoint stores and `check_order` compares."""


@dataclass(frozen=True)
class _WholeEpoch:
    num_samples: int
    seed: int

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def storage_places(self, q: np.ndarray) -> np.ndarray:
        return np.asarray(q, dtype=np.int64)  # shuffled over everything, no sample is nearer to one than to another

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "seed": self.seed, "num_samples": self.num_samples}


@dataclass(frozen=True)
class FrameOrder(_WholeEpoch):
    """All samples shuffled, each epoch anew, by a keyed permutation: no memory and no start-up, whatever the size."""

    name: ClassVar[str] = "frames"

    def samples(self, q: np.ndarray) -> np.ndarray:
        q = np.asarray(q, dtype=np.int64)
        if not q.size:
            return q
        epochs, places = np.divmod(q.reshape(-1), self.num_samples)
        distinct, which = distinct_values(epochs)
        keys = np.stack([random_words(self.seed, int(epoch), purpose=FRAMES) for epoch in distinct], axis=1)
        return permute(places, self.num_samples, keys if which is None else keys[:, which]).reshape(q.shape)


@dataclass(frozen=True)
class SequentialOrder(_WholeEpoch):
    """Storage order, every epoch alike. The seed changes nothing."""

    name: ClassVar[str] = "sequential"

    def samples(self, q: np.ndarray) -> np.ndarray:
        return np.asarray(q, dtype=np.int64) % self.num_samples


@dataclass(frozen=True)
class LeRobotOrder(_WholeEpoch):
    """The order of lerobot-train 0.6.1, kept by torch.randperm. Holds an epoch in memory (8 bytes a sample)."""

    name: ClassVar[str] = "lerobot"

    def samples(self, q: np.ndarray) -> np.ndarray:
        q = np.asarray(q, dtype=np.int64)
        epochs, places = np.divmod(q, self.num_samples)
        result = np.empty_like(q)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = lerobot_epoch(self.num_samples, self.seed, int(epoch))[places[here]]
        return result


@lru_cache(maxsize=2)  # a batch touches two epochs at most, unless the dataset is tiny
def lerobot_epoch(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """One epoch's sample ids in lerobot-train's order."""
    import torch

    word = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.randperm(num_samples, generator=torch.Generator().manual_seed(word)).numpy()


def build_order(
    name: str,
    *,
    num_samples: int,
    seed: int,
    episode_lengths: np.ndarray,
    shard_frames: int = SHARD_FRAMES,
    window_shards: int = WINDOW_SHARDS,
) -> Order:
    """The order called `name`. `episode_lengths`: samples of each episode in storage order; they add up to N."""
    if num_samples < 1:
        raise DatasetError("the selection holds no samples, so there is no order. Select at least one episode.")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed} cannot key an order. Use a seed from 0 to 2**63 - 1.")
    if name == "shards":
        order = ShardOrder.of_episodes(
            episode_lengths, seed=seed, shard_frames=shard_frames, window_shards=window_shards
        )
        if order.num_samples != num_samples:
            raise DatasetError(
                f"the episodes hold {order.num_samples} samples, the selection says {num_samples}. "
                "Pass episode_lengths after drop_n_last_frames, for the selected episodes only."
            )
        return order
    for order_type in (FrameOrder, LeRobotOrder, SequentialOrder):
        if name == order_type.name:
            return order_type(num_samples, seed)
    guess = nearest(name, ORDERS)
    raise ConfigError(
        f"there is no order called {name!r}. "
        + (f"Did you mean {guess!r}? " if guess else "")
        + f"The orders are {', '.join(ORDERS)}."
    )


_REMEDIES = {
    "name": "Resume with the order it was saved with, or start a new run.",
    "version": "This release orders samples differently. Resume with the release that saved it, or start a new run.",
    "seed": "Resume with the seed it was saved with, or start a new run.",
    "num_samples": "The dataset or the selection (episodes, exclude_episodes, drop_n_last_frames, eval_split) has "
    "changed. Resume on the same samples, or start a new run from the saved policy.",
    "shards": "The episodes of the dataset or the selection have other lengths. Resume on the same samples, or start "
    "a new run from the saved policy.",
}


def check_order(saved: Mapping[str, Any], order: Order, *, checkpoint: str = "the checkpoint") -> None:
    """Raise CheckpointError unless `order` continues the stream that the `saved` state describes."""
    ours = order.state()
    if saved.get("dropped_episodes") and "dropped_episodes" not in ours:
        raise CheckpointError(
            f"{checkpoint} was saved by a run that had dropped {len(saved['dropped_episodes'])} unreadable episodes, "
            "and this run would read them. Resume with --dataset.on_bad_episode=skip, or start a new run."
        )
    for field, value in ours.items():
        if field == "dropped_episodes":  # not a setting but history: restored from the state, never compared
            continue
        if field not in saved:
            raise CheckpointError(
                f"{checkpoint} says nothing about the data order's {field}, so it cannot be continued exactly. "
                "Start a new run from the saved policy."
            )
        if saved[field] != value:
            remedy = _REMEDIES.get(field, f"Resume with {field}={saved[field]!r}, or start a new run.")
            raise CheckpointError(
                f"{checkpoint} was saved with data order {field}={saved[field]!r}, this run has {value!r}. {remedy}"
            )
