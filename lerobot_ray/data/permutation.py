"""A keyed shuffle of [0, size) that needs no table: any one place costs the same, whatever the size.

The numbers are laid out as a grid of `rows` x `columns`, large enough and hardly larger, and a Feistel network moves
each of them: a round turns every column by its own keyed distance, the next every row, and so on. Each round can be
undone, so the whole is a permutation of the grid. A number that lands in a cell beyond `size` is moved on until it does
not; since it began inside, it gets back inside, and the result is a permutation of [0, size).

Keys are raw bits of numpy's Philox, distances a SplitMix64 stream, both fixed for good: numpy promises the raw bits of
its bit generators, not the methods built on them. Everything is wrapping uint64 arithmetic, alike on all machines.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

ROUNDS = 8
MIN_SIDE = 8
"""Of the grid. With 4 rounds neighbouring places stay correlated, on a grid of 2 x 3 some permutations of five things
are rarer than others. tests/data/test_permutation.py sees both, and with these numbers it sees nothing."""

# What the random words are for: no two uses share a stream.
FRAMES, SHARDS, WINDOW, REPLACEMENT = range(4)

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@lru_cache(maxsize=4096)
def random_words(seed: int, epoch: int, *, purpose: int, number: int = 0, count: int = ROUNDS) -> np.ndarray:
    """`count` random uint64 of (seed, epoch). Two key words, not a sum: seed 7, epoch 1 is not seed 8, epoch 0."""
    counter = np.array([0, 0, number, purpose], dtype=np.uint64)
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter).random_raw(count)
    words.setflags(write=False)
    return words


def distinct_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The distinct values and which of them each item is; None where all are equal, the common and cheap case."""
    if len(values) and values[0] == values[-1] and (values == values[0]).all():
        return values[:1], None
    return np.unique(values, return_inverse=True)


def permute(places: np.ndarray, size: np.ndarray | int, keys: np.ndarray) -> np.ndarray:
    """Where each of `places` (int64, one axis) goes in a keyed permutation of [0, size).

    `size` and `keys` are one for all places (an int, shape (ROUNDS, 1)) or one per place ((n,), (ROUNDS, n)).
    """
    sizes = np.atleast_1d(np.asarray(size, dtype=np.int64))
    rows = np.maximum(np.sqrt(sizes.astype(np.float64)).astype(np.int64) + 1, MIN_SIDE)
    columns = np.maximum((sizes + rows - 1) // rows, MIN_SIDE)
    result = _permute_grid(places, rows, columns, keys)
    if (sizes == 1).any():  # where there is nothing to permute, walking back to it would take longest
        result = np.where(sizes == 1, 0, result)
    outside = np.flatnonzero(result >= sizes)
    while len(outside):  # few: beyond a grid of MIN_SIDE squared, the grid exceeds `size` by less than one row
        chosen = [value if value.shape[-1] == 1 else value[..., outside] for value in (rows, columns, keys, sizes)]
        moved = _permute_grid(result[outside], *chosen[:3])
        result[outside] = moved
        outside = outside[moved >= chosen[3]]
    return result


def _permute_grid(places: np.ndarray, rows: np.ndarray, columns: np.ndarray, keys: np.ndarray) -> np.ndarray:
    row, column = (part.astype(np.uint64) for part in np.divmod(places, columns))
    rows, columns = rows.astype(np.uint64), columns.astype(np.uint64)
    for number in range(0, len(keys), 2):
        row += _distances(column, rows, keys[number])
        np.subtract(row, rows, out=row, where=row >= rows)
        column += _distances(row, columns, keys[number + 1])
        np.subtract(column, columns, out=column, where=column >= columns)
    row *= columns
    row += column
    return row.astype(np.int64)


def _distances(lines: np.ndarray, limit: np.ndarray, key: np.ndarray) -> np.ndarray:
    """A number below `limit` for each line: item `line` of the SplitMix64 stream that `key` starts."""
    words = mix(lines * _GAMMA + key)
    words >>= np.uint64(32)
    words *= limit  # below 2**32 both, so the product fits; the bias is limit / 2**32 and rounds add up
    words >>= np.uint64(32)
    return words


def mix(words: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer, in place: every bit of the input moves every bit of the output."""
    words ^= words >> np.uint64(30)
    words *= _MIX_1
    words ^= words >> np.uint64(27)
    words *= _MIX_2
    words ^= words >> np.uint64(31)
    return words
