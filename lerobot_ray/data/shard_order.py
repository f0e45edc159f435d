"""The `shards` order: shuffled, but only a small part of the storage is in use at any time.

Episodes in storage order are cut into shards of about `shard_frames` samples. Each epoch shuffles the shards, then the
samples within every window of `window_shards` consecutive shards. Readers work on one window's files at a time, can
fetch the next window ahead, and every sample still comes exactly once an epoch, in another order each epoch.

Memory is three integers per shard, never anything per frame. A long episode is cut into several shards, so that one
recording of an hour does not make a window of hours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from lerobot_ray.config.dataset import SHARD_FRAMES, WINDOW_SHARDS
from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.data.permutation import SHARDS, WINDOW, distinct_values, permute, random_words


@dataclass(frozen=True)
class _Epoch:
    """One epoch's shards in training order."""

    number: int
    shards: np.ndarray
    starts: np.ndarray  # (shards + 1,) places where they begin; the last entry is the number of samples
    window_starts: np.ndarray  # (windows + 1,) likewise


@dataclass(frozen=True, eq=False)
class ShardOrder:
    """Shards shuffled each epoch, samples shuffled within windows of shards."""

    bounds: np.ndarray
    """Shard i holds samples [bounds[i], bounds[i + 1])."""
    seed: int
    shard_frames: int = SHARD_FRAMES
    window_shards: int = WINDOW_SHARDS

    name: ClassVar[str] = "shards"
    version: ClassVar[int] = 1

    @classmethod
    def of_episodes(
        cls,
        episode_lengths: np.ndarray,
        *,
        seed: int,
        shard_frames: int = SHARD_FRAMES,
        window_shards: int = WINDOW_SHARDS,
    ) -> ShardOrder:
        """The order over episodes of these lengths, in storage order."""
        if shard_frames < 1 or window_shards < 1:
            raise ConfigError(
                f"shard_frames={shard_frames}, window_shards={window_shards}: both must be at least 1. "
                f"The defaults are {SHARD_FRAMES} and {WINDOW_SHARDS}."
            )
        return cls(shard_bounds(episode_lengths, shard_frames), seed, shard_frames, window_shards)

    @property
    def num_samples(self) -> int:
        return int(self.bounds[-1])

    @property
    def num_shards(self) -> int:
        return len(self.bounds) - 1

    @property
    def windows_per_epoch(self) -> int:
        return -(-self.num_shards // self.window_shards)

    def window_bounds(self) -> np.ndarray:
        """Window w holds shards [bounds[w], bounds[w + 1]) of an epoch. Evenly, so that no window is a small rest."""
        return np.arange(self.windows_per_epoch + 1) * self.num_shards // self.windows_per_epoch

    def state(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "seed": self.seed,
            "num_samples": self.num_samples,
            "shard_frames": self.shard_frames,
            "window_shards": self.window_shards,
            "shards": hashlib.sha256(self.bounds.astype("<i8").tobytes()).hexdigest()[:16],
        }

    def samples(self, q: np.ndarray) -> np.ndarray:
        return self._for_each_epoch(q, lambda epoch, places: self._sample(epoch, self._shuffled(epoch, places)))

    def storage_places(self, q: np.ndarray) -> np.ndarray:
        """Sort keys of stream indices: windows in training order, and within a window its shards frame by frame."""
        return self._for_each_epoch(
            q, lambda epoch, places: self._shuffled(epoch, places) + epoch.number * self.num_samples
        )

    def window_of(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, window within the epoch) of each stream index."""
        windows = self._for_each_epoch(q, lambda epoch, places: _interval(epoch.window_starts, places))
        return np.asarray(q, dtype=np.int64) // self.num_samples, windows

    def window_span(self, epoch: int, window: int) -> range:
        """The stream indices a window covers. The next window, of this epoch or the next, begins where it ends."""
        starts = _epoch(self, epoch).window_starts
        return range(epoch * self.num_samples + int(starts[window]), epoch * self.num_samples + int(starts[window + 1]))

    def window_ranges(self, epoch: int, window: int) -> list[range]:
        """The sample ids of a window, one range per shard, in the order ranks divide them: what to fetch ahead."""
        bounds = self.window_bounds()
        shards = _epoch(self, epoch).shards[bounds[window] : bounds[window + 1]]
        return [range(int(self.bounds[shard]), int(self.bounds[shard + 1])) for shard in shards]

    def _for_each_epoch(self, q: np.ndarray, function: Callable[[_Epoch, np.ndarray], np.ndarray]) -> np.ndarray:
        q = np.asarray(q, dtype=np.int64)
        epochs, places = np.divmod(q, self.num_samples)
        result = np.empty_like(q)
        for number in np.unique(epochs):
            here = epochs == number
            result[here] = function(_epoch(self, int(number)), places[here])
        return result

    def _shuffled(self, epoch: _Epoch, places: np.ndarray) -> np.ndarray:
        """Places of an epoch -> places in its shards laid end to end: shuffled within every window."""
        distinct, which = distinct_values(_interval(epoch.window_starts, places))
        words = [random_words(self.seed, epoch.number, purpose=WINDOW, number=int(window)) for window in distinct]
        keys, first, sizes = (
            np.stack(words, axis=1),
            epoch.window_starts[distinct],
            np.diff(epoch.window_starts)[distinct],
        )
        if which is not None:
            keys, first, sizes = keys[:, which], first[which], sizes[which]
        return first + permute(places - first, sizes, keys)

    def _sample(self, epoch: _Epoch, places: np.ndarray) -> np.ndarray:
        shard = _interval(epoch.starts, places)
        return self.bounds[epoch.shards[shard]] + places - epoch.starts[shard]


@lru_cache(maxsize=4)  # a reader looks one epoch ahead at most
def _epoch(order: ShardOrder, number: int) -> _Epoch:
    keys = random_words(order.seed, number, purpose=SHARDS)[:, None]
    shards = permute(np.arange(order.num_shards), order.num_shards, keys)
    starts = np.concatenate([[0], np.cumsum(np.diff(order.bounds)[shards])])
    return _Epoch(number, shards, starts, starts[order.window_bounds()])


def _interval(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.searchsorted(starts, places, side="right") - 1


def shard_bounds(episode_lengths: np.ndarray, shard_frames: int) -> np.ndarray:
    """Where shards begin, and the end of the last: cuts between episodes, or within one longer than a shard.

    Shards hold `shard_frames` samples give or take one piece, and a piece is no longer than `shard_frames`.
    """
    lengths = np.asarray(episode_lengths, dtype=np.int64)
    total = int(lengths.sum())
    if total < 1:
        raise DatasetError("the selection holds no samples, so there are no shards. Select at least one episode.")
    pieces = np.maximum(-(-lengths // shard_frames), 1)
    piece_number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    longer = np.repeat(lengths % pieces, pieces)  # so many pieces are one sample longer than the others
    starts = np.repeat(np.cumsum(lengths) - lengths, pieces)
    cuts = starts + piece_number * np.repeat(lengths // pieces, pieces) + np.minimum(piece_number, longer)
    wanted = np.arange(0, total, shard_frames)
    after = np.searchsorted(cuts, wanted)  # the first cut at or after each multiple of shard_frames
    return np.unique(np.append(cuts[after[after < len(cuts)]], [0, total]))
