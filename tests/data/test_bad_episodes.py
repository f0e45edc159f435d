"""Dropping an episode touches its own places only, alike on every rank, whenever a rank learns of it."""

from __future__ import annotations

import json
import pickle
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import CheckpointError, DatasetError
from lerobot_ray.data.bad_episodes import DroppedEpisode, SkippingOrder, agreed_index, restore_dropped
from lerobot_ray.data.episodes import Selection, select_episodes
from lerobot_ray.data.order import ORDERS, build_order, check_order
from lerobot_ray.data.plan import StreamPlan
from tests.data.tables import table_of

LENGTHS = [15, 25, 12, 20, 30, 18]
N = sum(LENGTHS)
SELECTION = select_episodes(table_of([9, *LENGTHS]), episodes=range(1, 7))  # episode numbers are not positions
STREAM = np.arange(5 * N)


def order_of(name="frames", selection: Selection = SELECTION, seed: int = 2):
    return build_order(
        name,
        num_samples=selection.num_samples,
        seed=seed,
        episode_lengths=selection.lengths,
        shard_frames=20,
        window_shards=2,
    )


def episodes_at(order: SkippingOrder, q: np.ndarray) -> np.ndarray:
    return SELECTION.episodes[SELECTION.locate(order.samples(q))[0]]


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=40, deadline=None)
@given(drops=st.dictionaries(st.integers(1, 6), st.integers(0, 4 * N), max_size=2))
def test_only_places_of_dropped_episodes_change(name, drops):
    inner = order_of(name)
    order = SkippingOrder(inner, SELECTION, tuple(DroppedEpisode(*item) for item in drops.items()))
    before, after = inner.samples(STREAM), order.samples(STREAM)
    originally = SELECTION.episodes[SELECTION.locate(before)[0]]
    since = np.array([drops.get(int(episode), 10**9) for episode in originally])
    fell = since <= STREAM
    assert (after[~fell] == before[~fell]).all()
    now = SELECTION.episodes[SELECTION.locate(after)[0]]
    for episode, index in drops.items():
        assert not (now[index:] == episode).any()


@settings(max_examples=40, deadline=None)
@given(first=st.integers(1, 6), second=st.integers(1, 6), index=st.integers(0, 2 * N), later=st.integers(0, 2 * N))
def test_ranks_that_know_less_differ_in_the_unknown_episode_only(first, second, index, later):
    """One rank knows of two bad episodes, the other of one: all places the second one does not touch agree."""
    less = SkippingOrder(order_of(), SELECTION, (DroppedEpisode(first, index),))
    more = less.without([second], from_index=index + later)
    differ = less.samples(STREAM) != more.samples(STREAM)
    assert (episodes_at(less, STREAM)[differ] == second).all()
    assert (STREAM[differ] >= index + later).all()


def test_the_rank_that_cannot_read_puts_there_what_the_drop_would():
    """Before the agreed index a rank that stumbles replaces alone; afterwards all do. It is the same stream."""
    order = SkippingOrder(order_of(), SELECTION)
    dropped_from_start = order.without([3], from_index=0)
    stumbles = STREAM[episodes_at(order, STREAM) == 3]
    assert (order.replacements(stumbles, [3]) == dropped_from_start.samples(stumbles)).all()

    # the replacement may fall into another bad episode: asked again with both, as if both were dropped
    both = dropped_from_start.without([5], from_index=0)
    again = stumbles[episodes_at(dropped_from_start, stumbles) == 5]
    assert len(again)
    assert (order.replacements(again, [3, 5]) == both.samples(again)).all()


@pytest.mark.parametrize("name", ["frames", "shards"])
def test_all_ranks_see_one_stream_after_the_agreed_index(name):
    """Each rank plans ahead by another amount when the news comes; from the agreed step on they read the same."""
    global_batch, start = 24, 48
    planned_until = [start + 1, start + 5 * global_batch - 1, start + 3 * global_batch]
    index = agreed_index(planned_until, start=start, global_batch=global_batch)
    assert index == start + 5 * global_batch
    order = SkippingOrder(order_of(name), SELECTION).without([4], from_index=index)

    def trained(world_size: int) -> list[np.ndarray]:
        plans = [
            StreamPlan(
                order=order,
                global_batch=24,
                micro_batch=4,
                world_size=world_size,
                rank=rank,
                start=start,
                micro_batches_per_block=6 // world_size * 10,
            )
            for rank in range(world_size)
        ]
        blocks = [plan.block(0) for plan in plans]
        q = np.concatenate([block.stream_indices.ravel() for block in blocks])
        return np.concatenate([block.sample_ids.ravel() for block in blocks])[np.argsort(q)]

    one, three = trained(1), trained(3)
    assert (one == three).all()
    assert (one == order.samples(start + np.arange(len(one)))).all()


@pytest.mark.parametrize(
    ("planned", "index"), [([0], 0), ([10], 10), ([11], 20), ([20], 20), ([3, 41, 7], 50), ([-5], 0)]
)
def test_agreed_index_begins_the_first_step_nobody_has_planned(planned, index):
    assert agreed_index(planned, start=0, global_batch=10) == index
    assert agreed_index([7 + p for p in planned], start=7, global_batch=10) == 7 + index


def test_replacements_are_spread_evenly():
    order = SkippingOrder(order_of("sequential"), SELECTION).without([2], from_index=0)
    q = np.flatnonzero(episodes_at(SkippingOrder(order.inner, SELECTION), np.arange(400 * N)) == 2)
    counts = np.bincount(order.samples(q), minlength=N)
    healthy = np.ones(N, dtype=bool)
    healthy[15:40] = False
    assert counts[~healthy].sum() == 0
    expected = counts.sum() / healthy.sum()
    chi_square = ((counts[healthy] - expected) ** 2 / expected).sum()
    degrees = healthy.sum() - 1
    assert abs(chi_square - degrees) < 4 * sqrt(2 * degrees)
    assert len(set(order.samples(q[:25]).tolist()) & set(order.samples(q[25:50]).tolist())) < 15  # new ones each epoch


def test_another_seed_draws_others():
    q = STREAM[episodes_at(SkippingOrder(order_of("sequential"), SELECTION), STREAM) == 5]
    drawn = [SkippingOrder(order_of("sequential", seed=s), SELECTION).replacements(q, [5]) for s in (0, 1)]
    assert (drawn[0] != drawn[1]).mean() > 0.9


@pytest.mark.parametrize("name", ORDERS)
def test_a_resumed_run_reads_what_the_unbroken_run_reads(name):
    unbroken = SkippingOrder(order_of(name), SELECTION).without([6], from_index=50).without([2], from_index=120)
    state = json.loads(json.dumps(unbroken.state()))
    resumed = restore_dropped(order_of(name), SELECTION, state)
    check_order(state, resumed)
    assert resumed.state() == state
    assert state["dropped_episodes"] == [[6, 50], [2, 120]]
    assert (resumed.samples(STREAM) == unbroken.samples(STREAM)).all()


def test_an_episode_keeps_the_index_it_was_dropped_at():
    order = SkippingOrder(order_of(), SELECTION).without([2], from_index=50)
    assert order.without([2], from_index=10).state() == order.state()
    assert order.without([2, 3], from_index=80).state()["dropped_episodes"] == [[2, 50], [3, 80]]


def test_a_run_that_reads_bad_episodes_cannot_go_on_from_one_that_does_not():
    order = SkippingOrder(order_of(), SELECTION)
    check_order(order_of().state(), order)  # nothing dropped yet: --dataset.on_bad_episode may be turned on
    check_order(order.state(), order_of())
    with pytest.raises(CheckpointError, match="on_bad_episode=skip"):
        check_order(order.without([2], from_index=0).state(), order_of())


def test_a_selection_mostly_gone_is_refused():
    with pytest.raises(DatasetError, match="93 of 120 samples are in episodes that cannot be read"):
        SkippingOrder(order_of(), SELECTION).without([2, 4, 5, 6], from_index=0)
    order = SkippingOrder(order_of(), SELECTION)
    with pytest.raises(DatasetError, match="more than half"):
        order.replacements(STREAM, [1, 2, 3, 4, 5])


def test_an_episode_outside_the_selection_is_refused():
    for number in (0, 7):
        with pytest.raises(DatasetError, match=f"episode {number} cannot be dropped"):
            SkippingOrder(order_of(), SELECTION).without([number], from_index=0)


def test_pickles_and_keeps_shapes():
    order = pickle.loads(pickle.dumps(SkippingOrder(order_of(), SELECTION).without([1], from_index=0)))
    assert order.samples(STREAM.reshape(5, N)).shape == (5, N)
    assert (order.storage_places(STREAM) == order.inner.storage_places(STREAM)).all()


def test_draws_are_pinned():
    order = SkippingOrder(order_of("sequential", seed=42), SELECTION).without([1], from_index=0)
    assert order.samples(np.arange(8)).tolist() == [75, 84, 73, 65, 80, 43, 31, 88], (
        "Replacements for dropped episodes have changed: checkpoints of runs with on_bad_episode=skip would resume on "
        "other samples. Undo the change, or raise the version of the orders."
    )
