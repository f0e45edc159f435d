"""Orders: each epoch is a permutation, any place can be asked for alone, and the first ids are pinned."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import CheckpointError, ConfigError, DatasetError
from lerobot_ray.data.order import ORDERS, FrameOrder, build_order, check_order, lerobot_epoch

EPISODES = np.array([15, 25, 12, 20])
HUGE = 10**12


def order_of(name: str, lengths=EPISODES, seed: int = 42, **options):
    lengths = np.asarray(lengths)
    options = {"shard_frames": 10, "window_shards": 3} | options
    return build_order(name, num_samples=int(lengths.sum()), seed=seed, episode_lengths=lengths, **options)


GOLDEN = {
    "frames": [34, 48, 45, 68, 20, 71, 30, 37, 62, 9],
    "shards": [48, 65, 51, 64, 62, 40, 70, 66, 71, 68],
    "lerobot": [26, 43, 2, 0, 3, 63, 15, 50, 32, 57],
    "sequential": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
}
GOLDEN_LATER = {  # 3 epochs on
    "frames": [49, 29, 67, 33, 6, 2, 34, 70, 71, 37],
    "shards": [30, 24, 31, 26, 27, 23, 29, 28, 19, 25],
    "lerobot": [48, 8, 29, 12, 34, 67, 5, 63, 19, 21],
    "sequential": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
}


@pytest.mark.parametrize("name", ORDERS)
def test_first_ids_of_seed_42(name):
    order = order_of(name)
    problem = (
        f"The {name} order has changed: every checkpoint of a run with it would resume on other samples. Undo the "
        "change, or raise the order's version, so that old checkpoints are refused instead of continued wrongly. "
        "(lerobot: torch.randperm itself may have changed; then LeRobot's own runs have too.)"
    )
    assert order.samples(np.arange(10)).tolist() == GOLDEN[name], problem
    assert order.samples(3 * 72 + np.arange(10)).tolist() == GOLDEN_LATER[name], problem
    assert order.version == 1


def test_first_ids_of_a_huge_dataset():
    order = FrameOrder(num_samples=HUGE, seed=42)
    pinned = [959776741918, 712540532621, 865766830144, 833367675433, 739445740270]
    assert order.samples(np.array([0, 1, HUGE - 1, HUGE, 5 * HUGE + 7])).tolist() == pinned, (
        "The frames order has changed for large datasets: see test_first_ids_of_seed_42."
    )


@pytest.mark.parametrize(
    ("seed", "epoch", "first"),
    [
        (1000, 0, [0, 30, 21, 59, 41, 17, 49, 31, 61, 45]),
        (1000, 1, [14, 67, 18, 24, 60, 7, 71, 19, 22, 40]),
        (0, 0, [36, 38, 15, 29, 0, 71, 20, 21, 5, 49]),
    ],
)
def test_lerobot_order_is_that_of_lerobot_0_6_1(seed, epoch, first):
    order = order_of("lerobot", seed=seed)
    assert order.samples(epoch * 72 + np.arange(10)).tolist() == first
    assert lerobot_epoch(72, seed, epoch)[:10].tolist() == first


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any),
    seed=st.integers(0, 2**63 - 1),
    shard_frames=st.integers(1, 30),
    window_shards=st.integers(1, 5),
)
def test_every_epoch_holds_every_sample_once(name, lengths, seed, shard_frames, window_shards):
    order = order_of(name, lengths, seed, shard_frames=shard_frames, window_shards=window_shards)
    n = order.num_samples
    epochs = order.samples(np.arange(3 * n)).reshape(3, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=25, deadline=None)
@given(places=st.lists(st.integers(0, 500), min_size=1, max_size=20), seed=st.integers(0, 1000))
def test_a_place_alone_is_the_place_in_the_stream(name, places, seed):
    order = order_of(name, seed=seed)
    stream = order.samples(np.arange(501))
    assert order.samples(np.array(places)).tolist() == stream[places].tolist()
    assert [int(order.samples(np.array(place))) for place in places] == stream[places].tolist()
    assert order.samples(np.array([], dtype=np.int64)).tolist() == []
    assert order.samples(np.array([places, places])).tolist() == [stream[places].tolist()] * 2


@pytest.mark.parametrize("name", ["frames", "shards", "lerobot"])
def test_seeds_and_epochs_differ(name):
    n = 72
    epochs = [order_of(name, seed=seed).samples(epoch * n + np.arange(n)) for seed in range(6) for epoch in range(6)]
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 36


@pytest.mark.parametrize("name", ORDERS)
def test_pickles(name):
    order = order_of(name)
    order.samples(np.arange(200))
    data = pickle.dumps(order)
    assert len(data) < 1500  # travels to every decode actor: no epoch, no table of it
    assert (pickle.loads(data).samples(np.arange(200)) == order.samples(np.arange(200))).all()


def test_seeks_far_into_a_huge_dataset():
    order = FrameOrder(num_samples=HUGE, seed=7)
    q = 10**15 + np.arange(10_000)
    samples = order.samples(q)
    assert len(np.unique(samples)) == 10_000
    assert samples.min() >= 0
    assert samples.max() < HUGE
    assert (order.samples(q[[17]]) == samples[17]).all()


def test_frames_needs_no_torch():
    code = (
        "import sys, numpy as np; from lerobot_ray.data.order import FrameOrder; from lerobot_ray.data.plan import *; "
        "FrameOrder(10**9, 1).samples(np.arange(9)); print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize("name", ORDERS)
def test_state_is_plain_json_and_accepted_by_its_order(name):
    order = order_of(name)
    state = json.loads(json.dumps(order.state()))
    assert state["name"] == name
    assert {"name", "version", "seed", "num_samples"} <= set(state)
    check_order(state, order)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "frames"}, "name='frames', this run has 'shards'. Resume with the order"),
        ({"version": 7}, "version=7, this run has 1. This release"),
        ({"seed": 1}, "seed=1, this run has 42. Resume with the seed"),
        ({"num_samples": 73}, "num_samples=73, this run has 72. The dataset or the selection"),
        ({"shard_frames": 99}, "shard_frames=99, this run has 10. Resume with shard_frames=99"),
        ({"shards": "0"}, "other lengths"),
        ({"dropped_episodes": [[3, 100]]}, "dropped 1 unreadable episodes"),
    ],
)
def test_another_state_is_refused_by_field(change, says):
    with pytest.raises(CheckpointError) as error:
        check_order({**order_of("shards").state(), **change}, order_of("shards"), checkpoint="checkpoints/000100")
    assert says in str(error.value)
    assert str(error.value).startswith("checkpoints/000100")


def test_a_state_without_a_field_is_refused():
    with pytest.raises(CheckpointError, match="says nothing about the data order's seed"):
        check_order({"name": "frames", "version": 1, "num_samples": 72}, order_of("frames"))


def test_bad_requests():
    with pytest.raises(ConfigError, match="Did you mean 'frames'"):
        order_of("frame")
    with pytest.raises(DatasetError, match="holds no samples"):
        order_of("frames", [0, 0])
    for seed in (-1, 2**63):
        with pytest.raises(ConfigError, match="seed"):
            order_of("frames", seed=seed)
    with pytest.raises(DatasetError, match="72 samples, the selection says 71"):
        build_order("shards", num_samples=71, seed=0, episode_lengths=EPISODES)
    with pytest.raises(ConfigError, match="window_shards=0"):
        order_of("shards", window_shards=0)
