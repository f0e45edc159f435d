"""Episodes dropped from a running stream because a file of theirs cannot be read (`dataset.on_bad_episode=skip`).

Dropping an episode does not renumber the stream: N stays, stream index q keeps its epoch and its place, and so do all
samples of other episodes. Only the places that fall into the dropped episode get another sample, drawn from (seed, q)
and drawn again, from (seed, q, attempt), while the draw falls into a dropped episode too. So

- the sample at q depends on the seed, on q and on which episodes are dropped there, not on who asks or when;
- a place whose sample is healthy holds it whatever else is dropped: ranks that learn of a bad episode at different
  times never disagree about anything but that episode;
- an episode is dropped from an agreed stream index on (`agreed_index`: a step no rank has planned yet). Until then, the
  rank that cannot read the sample at q takes `replacements(q, …)`, the very sample the drop would put there.

The dropped episodes and the index from which each counts are part of the order's state: with them in the checkpoint, a
resumed run reads what the unbroken run would have read. An epoch still has N places; those of a dropped episode are
spread evenly over the healthy samples, which then come more than once in some epochs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.permutation import REPLACEMENT, mix, random_words

if TYPE_CHECKING:
    from lerobot_ray.data.episodes import Selection
    from lerobot_ray.data.order import Order

_NEVER = np.iinfo(np.int64).max
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class DroppedEpisode:
    """An episode that no sample is taken from at stream indices >= `from_index`."""

    episode: int
    from_index: int


@dataclass(frozen=True, eq=False)
class SkippingOrder:
    """An order with some episodes dropped, each from its own stream index on."""

    inner: Order
    selection: Selection
    dropped: tuple[DroppedEpisode, ...] = ()

    def __post_init__(self) -> None:
        self._agreed  # noqa: B018  refuses a selection that is mostly gone here, not at the next read

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def version(self) -> int:
        return self.inner.version

    @property
    def num_samples(self) -> int:
        return self.inner.num_samples

    @property
    def seed(self) -> int:
        return self.inner.seed

    def samples(self, q: np.ndarray) -> np.ndarray:
        return self._settled(q, self._agreed) if self.dropped else self.inner.samples(q)

    def replacements(self, q: np.ndarray, unreadable: Iterable[int]) -> np.ndarray:
        """Samples at `q` with the episodes numbered `unreadable` dropped too: for the rank that failed to read them.

        May fall into yet another bad episode; then ask again with both.
        """
        return self._settled(q, self._since(unreadable))

    def storage_places(self, q: np.ndarray) -> np.ndarray:
        return self.inner.storage_places(q)  # replacements are few; where they lie hardly matters

    def without(self, episodes: Iterable[int], *, from_index: int) -> SkippingOrder:
        """This order with more episodes dropped. One that is dropped already keeps its earlier index."""
        known = {item.episode for item in self.dropped}
        more = tuple(DroppedEpisode(int(number), int(from_index)) for number in sorted(set(episodes) - known))
        return SkippingOrder(self.inner, self.selection, self.dropped + more)

    def state(self) -> dict[str, Any]:
        dropped = sorted((item.from_index, item.episode) for item in self.dropped)
        return {**self.inner.state(), "dropped_episodes": [[episode, index] for index, episode in dropped]}

    @cached_property
    def _agreed(self) -> np.ndarray:
        return self._since(())

    def _since(self, unreadable: Iterable[int]) -> np.ndarray:
        """Per episode of the selection, the stream index from which it is dropped."""
        since = np.full(len(self.selection.episodes), _NEVER)
        for episode, from_index in [(item.episode, item.from_index) for item in self.dropped] + [
            (episode, 0) for episode in unreadable
        ]:
            position = np.searchsorted(self.selection.episodes, episode)
            if position == len(since) or self.selection.episodes[position] != episode:
                raise DatasetError(
                    f"episode {episode} cannot be dropped, it is not among the {len(since)} selected ones. "
                    "Resume on the selection the dropped episodes belong to."
                )
            since[position] = min(since[position], from_index)
        gone = int(self.selection.lengths[since < _NEVER].sum())
        if 2 * gone > self.selection.num_samples:
            raise DatasetError(
                f"{gone} of {self.selection.num_samples} samples are in episodes that cannot be read, more than half. "
                "That is no bad episode but a bad copy: fetch the dataset again and validate it."
            )
        return since

    def _settled(self, q: np.ndarray, since: np.ndarray) -> np.ndarray:
        """The samples at `q`, redrawn until none is dropped. At least half are healthy, so it takes few rounds."""
        shape = np.shape(q)
        q = np.asarray(q, dtype=np.int64).reshape(-1)
        samples = self.inner.samples(q)
        asked = np.arange(len(q))
        attempt = 0
        while True:
            position, _ = self.selection.locate(samples[asked])
            asked = asked[since[position] <= q[asked]]
            if not len(asked):
                return samples.reshape(shape)
            attempt += 1
            samples[asked] = _draw(self.seed, q[asked], attempt, self.num_samples)


def restore_dropped(order: Order, selection: Selection, saved: Mapping[str, Any]) -> SkippingOrder:
    """`order` with the episodes dropped that a checkpoint's order state says were."""
    dropped = tuple(DroppedEpisode(int(episode), int(index)) for episode, index in saved.get("dropped_episodes", []))
    return SkippingOrder(order, selection, dropped)


def agreed_index(planned_until: Iterable[int], *, start: int, global_batch: int) -> int:
    """From which stream index an episode found bad now can be dropped alike on all ranks.

    `planned_until`: for every rank, the stream index before which it may have planned samples already, read ahead ones
    included. The result begins the first step that no rank has planned.
    """
    ahead = max(planned_until) - start
    return start + max(0, -(-ahead // global_batch)) * global_batch


def _draw(seed: int, q: np.ndarray, attempt: int, num_samples: int) -> np.ndarray:
    """A sample id for each stream index, uniform and independent of all other draws."""
    words = random_words(seed, 0, purpose=REPLACEMENT)
    state = mix(q.astype(np.uint64) * _GAMMA + words[:1])
    state = mix(state + np.array([attempt], dtype=np.uint64) * _GAMMA + words[1:2])
    return (state % np.uint64(num_samples)).astype(np.int64)  # biased by less than num_samples / 2**64
