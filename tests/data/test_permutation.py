"""The keyed permutation is one, for every size, and shows no structure to the tests a suspicious reader would try.

All draws are keyed, so a statistic here is a number, not a chance: a test that passes passes always. Limits are in
standard deviations of what a perfect shuffle gives.
"""

from __future__ import annotations

from math import factorial, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.data.permutation import FRAMES, ROUNDS, SHARDS, distinct_values, permute, random_words

SEEDS = 20_000


def keys_of(seed: int, epoch: int = 0, **more: int) -> np.ndarray:
    return random_words(seed, epoch, purpose=FRAMES, **more)[:, None]


@pytest.fixture(scope="module")
def many_keys() -> np.ndarray:
    """(ROUNDS, SEEDS): the keys of consecutive seeds, which is what people use."""
    return np.concatenate([keys_of(seed) for seed in range(SEEDS)], axis=1)


def surprise(counts: np.ndarray) -> float:
    """How far a table of counts is from flat, in standard deviations of chi-square."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / sqrt(2 * degrees))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 9, 10, 63, 64, 65, 72, 1000, 4097, 100_000])
def test_is_a_permutation(size):
    for seed in range(5):
        assert (np.sort(permute(np.arange(size), size, keys_of(seed))) == np.arange(size)).all()


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 10**15), seed=st.integers(0, 2**63 - 1), data=st.data())
def test_no_two_places_of_a_huge_size_meet(size, seed, data):
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=50, unique=True))
    moved = permute(np.array(places), size, keys_of(seed))
    assert (moved >= 0).all()
    assert (moved < size).all()
    assert len(set(moved.tolist())) == len(places)


def test_sizes_and_keys_may_differ_from_place_to_place():
    sizes = np.array([1, 2, 7, 72, 10**12])
    keys = [keys_of(seed) for seed in range(5)]
    places = sizes - 1
    together = permute(places, sizes, np.concatenate(keys, axis=1))
    alone = [permute(places[i : i + 1], int(sizes[i]), keys[i])[0] for i in range(5)]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_every_permutation_of_a_few_is_equally_likely(size, many_keys):
    moved = np.stack([permute(np.full(SEEDS, place), size, many_keys) for place in range(size)])
    number = np.ravel_multi_index(list(moved), (size,) * size)
    _, counts = np.unique(number, return_counts=True)
    all_counts = np.concatenate([counts, np.zeros(factorial(size) - len(counts))])
    assert abs(surprise(all_counts)) < 4


@pytest.mark.parametrize("size", [7, 10, 72, 1000])
def test_every_place_goes_everywhere_equally_often(size, many_keys):
    for place in (0, 1, size // 2, size - 1):
        assert abs(surprise(np.bincount(permute(np.full(SEEDS, place), size, many_keys), minlength=size))) < 4


@pytest.mark.parametrize("size", [7, 10, 72])
def test_pairs_of_places_go_everywhere_equally_often(size, many_keys):
    apart = ~np.eye(size, dtype=bool)
    for first, second in ((0, 1), (1, 2), (0, size - 1), (2, 2 + size // 3)):
        a, b = (permute(np.full(SEEDS, place), size, many_keys) for place in (first, second))
        counts = np.bincount(a * size + b, minlength=size**2).reshape(size, size)
        assert counts[~apart].sum() == 0
        assert abs(surprise(counts[apart])) < 4


@pytest.mark.parametrize("size", [72, 1000, 50_000])
def test_neighbours_are_not_correlated(size):
    total, correlations = 0, []
    for seed in range(200_000 // size + 20):
        moved = permute(np.arange(size), size, keys_of(seed)).astype(float)
        centred = (moved - moved.mean()) / moved.std()
        for lag in (1, 2, int(sqrt(size)), int(sqrt(size)) + 1):  # the grid has sides of about sqrt(size)
            correlations.append((centred[:-lag] * centred[lag:]).sum() / sqrt(size))
        total += 1
    assert abs(np.mean(correlations)) < 4 / sqrt(4 * total) + 1 / sqrt(size)  # a shuffle's own bias is -1 / size
    assert abs(np.var(correlations) - 1) < 4 * sqrt(2 / (4 * total)) + 1 / sqrt(size)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)], ids=["another seed", "another epoch"])
def test_seeds_and_epochs_are_independent(seed, epoch):
    size = 20_011
    fixed, correlations = [], []
    for base in range(40):
        a = permute(np.arange(size), size, keys_of(base, base))
        b = permute(np.arange(size), size, keys_of(base + seed, base + epoch))
        fixed.append(int((a == b).sum()))
        correlations.append(float(np.corrcoef(a, b)[0, 1]))
    assert abs(np.mean(fixed) - 1) < 4 / sqrt(40)  # a random pair agrees in one place on average
    assert abs(np.mean(correlations)) < 4 / sqrt(40 * size)
    assert max(map(abs, correlations)) < 5 / sqrt(size)


def test_fixed_points_are_as_rare_as_chance_has_them():
    size = 997
    counts = [int((permute(np.arange(size), size, keys_of(seed)) == np.arange(size)).sum()) for seed in range(400)]
    assert abs(np.mean(counts) - 1) < 4 / sqrt(400)


def test_samples_of_a_batch_spread_evenly():
    """Any run of consecutive places covers the whole range: the batches of an epoch look alike."""
    size, batch = 1_000_003, 1000
    for begin in (0, 123_456, size - batch):
        moved = permute(np.arange(begin, begin + batch), size, keys_of(3, begin))
        assert abs(surprise(np.bincount(moved * 20 // size, minlength=20))) < 4


def test_words_of_different_uses_differ():
    seen = {
        tuple(random_words(seed, epoch, purpose=purpose, number=number).tolist())
        for seed in range(3)
        for epoch in range(3)
        for purpose in (FRAMES, SHARDS)
        for number in range(3)
    }
    assert len(seen) == 54
    assert all(len(set(words)) == ROUNDS for words in seen)


def test_distinct_values():
    values, which = distinct_values(np.array([5, 5, 5]))
    assert values.tolist() == [5]
    assert which is None
    values, which = distinct_values(np.array([5, 3, 5]))
    assert values[which].tolist() == [5, 3, 5]
