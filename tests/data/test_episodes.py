"""Which samples there are: numbers and rows as in LeRobot 0.6.1, refusals with a remedy."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.data.episodes import held_out_rows, select_episodes, split_episodes
from lerobot_ray.data.order import build_order
from tests.data.tables import table_of

TABLE = table_of([15, 25, 12, 20])


def test_anchors_of_the_reference_run():
    """lerobot-train 0.6.1, drop_n_last_frames 7, seed 1000: 44 anchors, and these rows first."""
    selection = select_episodes(TABLE, drop_n_last_frames=7)
    assert selection.num_samples == 44
    assert selection.lengths.tolist() == [8, 18, 5, 13]
    order = build_order("lerobot", num_samples=44, seed=1000, episode_lengths=selection.lengths)
    _, rows = selection.locate(order.samples(np.arange(10)))
    assert rows.tolist() == [27, 30, 28, 54, 24, 4, 62, 58, 43, 31]
    _, rows = selection.locate(order.samples(44 + np.arange(10)))
    assert rows.tolist() == [2, 22, 4, 30, 61, 58, 28, 42, 44, 26]


def test_all_episodes_by_default():
    selection = select_episodes(TABLE)
    assert selection.episodes.tolist() == [0, 1, 2, 3]
    assert selection.num_samples == selection.num_frames == 72
    position, rows = selection.locate(np.arange(72))
    assert rows.tolist() == list(range(72))
    assert position.tolist() == np.repeat(np.arange(4), [15, 25, 12, 20]).tolist()


def test_the_order_of_the_list_does_not_matter():
    one, other = (select_episodes(TABLE, episodes=numbers, drop_n_last_frames=7) for numbers in ([3, 1], [1, 3]))
    assert one.episodes.tolist() == [1, 3]
    assert one.fingerprint() == other.fingerprint()
    position, rows = one.locate(np.array([0, 17, 18, 30]))
    assert position.tolist() == [0, 0, 1, 1]
    assert rows.tolist() == [15, 32, 52, 64]
    assert (one.first_row.tolist(), one.last_row.tolist(), one.end_row.tolist()) == ([15, 52], [39, 71], [40, 72])


def test_locate_keeps_the_shape():
    position, rows = select_episodes(TABLE).locate(np.arange(12).reshape(3, 4))
    assert position.shape == rows.shape == (3, 4)


def test_exclude_episodes_warns_of_unknown_numbers(caplog):
    with caplog.at_level(logging.WARNING):
        selection = select_episodes(TABLE, exclude_episodes=[1, 7, -2])
    assert selection.episodes.tolist() == [0, 2, 3]
    assert "no episodes -2, 7 in a dataset of 4" in caplog.text
    assert select_episodes(TABLE, episodes=[1, 2], exclude_episodes=[1]).episodes.tolist() == [2]


def test_short_episodes_give_no_sample_but_stay_countable(caplog):
    with caplog.at_level(logging.WARNING):
        selection = select_episodes(TABLE, drop_n_last_frames=15)
    assert "episodes 0, 2 have no more than 15 frames" in caplog.text
    assert selection.lengths.tolist() == [0, 10, 0, 5]
    position, rows = selection.locate(np.arange(15))
    assert set(position.tolist()) == {1, 3}
    assert rows.tolist() == [*range(15, 25), *range(52, 57)]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=15),
    drop=st.integers(0, 6),
    data=st.data(),
)
def test_locate_is_counting(lengths, drop, data):
    numbers = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, unique=True))
    table = table_of(lengths)
    counted = [
        (place, int(table.from_index[episode]) + frame)
        for place, episode in enumerate(sorted(numbers))
        for frame in range(lengths[episode] - drop)
    ]
    if not counted:
        with pytest.raises(DatasetError, match="nothing to train on"):
            select_episodes(table, episodes=numbers, drop_n_last_frames=drop)
        return
    selection = select_episodes(table, episodes=numbers, drop_n_last_frames=drop)
    position, rows = selection.locate(np.arange(selection.num_samples))
    assert list(zip(position.tolist(), rows.tolist(), strict=True)) == counted


def test_memory_is_by_the_episode():
    selection = select_episodes(table_of([10**9] * 1000))
    assert selection.num_samples == 10**12
    assert len(pickle.dumps(selection)) < 60_000
    assert selection.locate(np.array([10**12 - 1]))[1].tolist() == [10**12 - 1]


def test_fingerprints_tell_selections_apart():
    selections = [
        select_episodes(TABLE),
        select_episodes(TABLE, episodes=[0, 1, 2]),
        select_episodes(TABLE, drop_n_last_frames=1),
        select_episodes(table_of([15, 25, 12, 21])),
        select_episodes(table_of([25, 15, 12, 20])),
    ]
    assert len({selection.fingerprint() for selection in selections}) == len(selections)
    assert select_episodes(TABLE).fingerprint() == "9e08d894306f9b0ba029f80dcb6ac631", (
        "Fingerprints changed: checkpoints would not resume."
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"episodes": [0, 4]}, "names 4, and this dataset has 4 episodes. Use numbers from 0 to 3"),
        ({"episodes": [-1]}, "names -1, and"),
        ({"episodes": list(range(2, 12))}, "names 4, 5, 6, 7, 8 and 3 more"),
        ({"episodes": [0, 1, 0]}, "names 0 more than once"),
        ({"episodes": []}, "no episodes are left"),
        ({"episodes": [1.5]}, "whole numbers"),
        ({"episodes": [True]}, "whole numbers"),
        ({"episodes": ["1"]}, "whole numbers"),
        ({"episodes": [1], "exclude_episodes": [1]}, "no episodes are left"),
        ({"exclude_episodes": range(4)}, "no episodes are left"),
        ({"drop_n_last_frames": -1}, "negative"),
        ({"drop_n_last_frames": 25}, "none of the 4 selected episodes has more than 25 frames"),
    ],
)
def test_what_cannot_be_selected(options, says):
    with pytest.raises(DatasetError) as error:
        select_episodes(TABLE, **options)
    assert says in str(error.value)


def test_samples_out_of_range():
    with pytest.raises(DatasetError, match="from 0 to 71, asked for 72"):
        select_episodes(TABLE).locate(np.array([0, 72]))
    with pytest.raises(DatasetError, match="asked for -1"):
        select_episodes(TABLE).locate(np.array([-1]))


# What LeRobot 0.6.1 holds out of 13 episodes with these first tasks (`make_train_eval_datasets`, run once; sorted here,
# because rows keep file order whatever the order of the list).
TASKS = ["a", "b", "a", "c", "a", "b", "a", "b", "b", "a", "a", "b", "b"]
SPLIT_TABLE = table_of(range(6, 19), TASKS)


@pytest.mark.parametrize(
    ("episodes", "eval_split", "train", "held_out"),
    [
        (None, 0.2, [0, 1, 2, 4, 5, 6, 7, 8], [3, 9, 10, 11, 12]),
        (None, 0.3, [0, 1, 2, 4, 5, 6, 7, 8], [3, 9, 10, 11, 12]),
        (None, 0.5, [0, 1, 2, 4, 5, 7], [3, 6, 8, 9, 10, 11, 12]),
        ([1, 2, 4, 5, 6, 7, 9, 10, 11], 0.5, [1, 2, 4, 5], [6, 7, 9, 10, 11]),
        (None, 0.0, list(range(13)), []),
    ],
)
def test_split_is_that_of_lerobot_0_6_1(episodes, eval_split, train, held_out):
    got_train, got_held_out = split_episodes(SPLIT_TABLE, episodes, eval_split)
    assert (got_train.tolist(), got_held_out.tolist()) == (train, held_out)
    selection = select_episodes(SPLIT_TABLE, episodes=episodes)
    assert split_episodes(SPLIT_TABLE, selection, eval_split)[1].tolist() == held_out


@pytest.mark.parametrize(("eval_split", "count"), [(0.07, 8), (0.14, 15), (0.29, 29)])
def test_split_rounds_as_lerobot_0_6_1(eval_split, count):
    _, held_out = split_episodes(table_of([2] * 100), None, eval_split)
    assert held_out.tolist() == list(range(100 - count, 100))


def test_what_cannot_be_split():
    for fraction in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="no fraction"):
            split_episodes(TABLE, None, fraction)
    with pytest.raises(DatasetError, match="holds out all 3 episodes"):
        split_episodes(table_of([5, 5, 5], ["a", "b", "c"]), None, 0.1)


def test_held_out_rows():
    assert held_out_rows(TABLE, np.array([2, 0])).tolist() == [*range(15), *range(40, 52)]
    selection = select_episodes(TABLE, episodes=[2], drop_n_last_frames=5)
    assert held_out_rows(TABLE, selection).tolist() == list(range(40, 52))  # dropped frames are evaluated
    assert held_out_rows(TABLE, np.array([], dtype=np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("cap", "rows"),
    [
        (4, [0, 1, 5, 6]),  # two tasks, 4 // 2 each: task by task
        (5, [0, 1, 5, 6]),
        (1, [0, 5]),  # at least one each
        (1000, [*range(5), *range(47, 52), *range(5, 15), *range(40, 47)]),
        (0, [*range(15), *range(40, 52)]),
    ],
)
def test_a_cap_keeps_the_first_frames_of_each_task(cap, rows):
    task_of_row = np.full(72, 9)
    task_of_row[5:47] = 14  # the task changes within both episodes
    got = held_out_rows(TABLE, np.array([0, 2]), max_eval_samples=cap, task_index=lambda asked: task_of_row[asked])
    assert got.tolist() == rows


def test_a_cap_needs_the_tasks_of_rows():
    with pytest.raises(TypeError, match="task_index"):
        held_out_rows(TABLE, np.array([0]), max_eval_samples=3)
