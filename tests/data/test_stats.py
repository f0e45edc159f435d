"""Statistics in pieces equal statistics of the whole, and quantiles are numpy's."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.quantiles import QuantileSearch, add_counts, count_digits, sort_keys, values_of_keys
from lerobot_ray.data.recount import column_array, count_stats, tabular_stats
from lerobot_ray.data.runners import Processes
from lerobot_ray.data.stats import (
    QUANTILES,
    Moments,
    ValueCounts,
    byte_counts,
    column_stats,
    merged_summaries,
    sampled_frames,
    subsampled,
)
from tests.make_dataset import make_dataset

DTYPES = ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]


def values_of(dtype: str) -> st.SearchStrategy[np.ndarray]:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else {}
    elements = hnp.from_dtype(np.dtype(dtype), **finite)
    return hnp.arrays(dtype, st.integers(1, 60), elements=elements)


def searched(parts: list[np.ndarray]) -> dict[str, float]:
    search = QuantileSearch(parts[0].dtype)
    while not search.done:
        total: dict = {}
        for part in parts:
            add_counts(total, count_digits(part, part.dtype, wanted=search.wanted, done_passes=search.passes))
        search.advance(total)
    return search.quantiles()


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_searched_quantiles_lie_between_the_right_neighbours(dtype, data):
    values = data.draw(values_of(dtype))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    found = searched(np.split(values, cuts))
    ordered = np.sort(values.astype(np.float64))
    for name, q in QUANTILES.items():
        place = q * (len(values) - 1)
        low, high = ordered[int(place)], ordered[min(int(place) + 1, len(values) - 1)]
        if low == high or dtype in ("uint8", "bool"):
            assert found[name] == pytest.approx(low + (high - low) * (place - int(place)), abs=1e-12)
        assert low <= found[name] <= high or np.isclose(found[name], [low, high], rtol=1e-12).any()


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_keys_sort_as_values_do_and_lead_back(dtype, data):
    values = data.draw(values_of(dtype))
    keys = sort_keys(values)
    assert np.array_equal(values_of_keys(keys.tolist(), values.dtype), values.astype(np.float64))
    order = np.argsort(keys, kind="stable")
    assert np.array_equal(values[order].astype(np.float64), np.sort(values.astype(np.float64)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_searched_quantiles_are_numpys(dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=5001) * 1000).astype(dtype)
    found = searched(np.array_split(values, 7))
    expected = np.quantile(values.astype(np.float64), list(QUANTILES.values()))
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-14)


def test_values_that_are_not_finite_are_left_out():
    values = np.array([1, np.nan, 2, np.inf, 3, -np.inf], np.float32)
    assert searched([values]) == searched([np.array([1, 2, 3], np.float32)])
    stats = column_stats(values)
    assert (stats["min"], stats["max"], stats["mean"], stats["count"]) == ([1], [3], [2], [6])
    assert stats["q50"] == [2]
    empty = column_stats(np.full((4, 2), np.nan, np.float32))
    assert all(np.array_equal(empty[name], [0, 0]) for name in ("min", "max", "mean", "std", "q50"))
    assert searched([np.array([np.nan], np.float32)])["q50"] == 0.0


@given(
    table=hnp.arrays("float64", hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.floats(-1e6, 1e6)),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_moments_of_pieces_are_moments_of_the_whole(table, cuts):
    pieces = [piece for piece in np.split(table, sorted(min(cut, len(table)) for cut in cuts)) if len(piece)]
    merged = reduce(Moments.merged, map(Moments.of, pieces)).stats()
    assert merged["count"] == [len(table)]
    assert np.array_equal(merged["min"], table.min(axis=0))
    assert np.array_equal(merged["max"], table.max(axis=0))
    np.testing.assert_allclose(merged["mean"], table.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(merged["std"], table.std(axis=0), atol=1e-5, rtol=1e-6)


def test_a_large_offset_does_not_cancel_the_deviation():
    values = np.float64(1e9) + np.random.default_rng(0).normal(size=(1000, 1))
    merged = reduce(Moments.merged, map(Moments.of, np.array_split(values, 9)))
    np.testing.assert_allclose(merged.stats()["std"], values.std(axis=0), rtol=1e-6)


def test_arrays_are_pooled_but_for_their_last_axis():
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    stats = column_stats(values)
    assert stats["min"].tolist() == [0, 1, 2]
    assert stats["count"].tolist() == [4]
    assert stats["mean"].shape == (3,)


@pytest.mark.parametrize(
    ("length", "number"),
    [(1, 1), (50, 50), (100, 100), (101, 100), (1000, 177), (10**6, 10_000), (465, 100), (466, 100)],
)
def test_how_many_frames_cameras_are_judged_by(length, number):
    frames = sampled_frames(length)
    assert len(frames) == number
    assert frames[0] == 0
    assert frames[-1] == length - 1
    assert len(np.unique(frames)) == number


@pytest.mark.parametrize(("size", "kept"), [((96, 299), (96, 299)), ((300, 200), (150, 100)), ((480, 640), (120, 160))])
def test_large_frames_are_subsampled(size, kept):
    assert subsampled(np.zeros((*size, 3))).shape[:2] == kept


def test_pixel_counts_give_exact_statistics():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    parts = [ValueCounts.of_bytes(byte_counts(frame), frames=1) for frame in frames]
    stats = reduce(ValueCounts.merged, parts).stats(unit=255)
    table = frames.reshape(-1, 3) / 255
    assert stats["count"] == [5]
    assert stats["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(stats["mean"].ravel(), table.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats["std"].ravel(), table.std(axis=0), rtol=1e-12)
    for name, q in QUANTILES.items():
        np.testing.assert_allclose(stats[name].ravel(), np.quantile(table, q, axis=0), rtol=1e-12)


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_depth_is_counted_by_value(unit):
    rng = np.random.default_rng(0)
    frames = rng.integers(300, 4000, (6, 20, 30)).astype(np.uint16)
    given_frames = frames if unit == "mm" else frames.astype(np.float32) / 1000
    parts = [ValueCounts.of_depth(given_frames[:2]), ValueCounts.of_depth(given_frames[2:])]
    stats = reduce(ValueCounts.merged, parts).stats(unit=1)
    tolerance = 1e-12 if unit == "mm" else 2.0**-17
    for name, expected in (
        ("min", given_frames.min()),
        ("mean", given_frames.astype(np.float64).mean()),
        ("q50", np.quantile(given_frames.astype(np.float64), 0.5)),
    ):
        np.testing.assert_allclose(stats[name].ravel(), expected, rtol=tolerance)


@given(weights=st.lists(st.integers(1, 50), min_size=2, max_size=4))
def test_summaries_of_equal_pieces_are_that_piece(weights):
    rng = np.random.default_rng(0)
    stats = ValueCounts.of_bytes(byte_counts(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)), frames=1).stats(
        unit=255
    )
    merged = merged_summaries([{**stats, "count": np.array([weight])} for weight in weights])
    assert merged["count"] == [sum(weights)]
    for name in ("min", "max", "mean", "std", *QUANTILES):
        np.testing.assert_allclose(merged[name], stats[name], atol=2e-3)


def test_processes_count_what_one_process_counts(tmp_path):
    root = make_dataset(tmp_path / "toy", files="many", image_cameras={"observation.image": (32, 48)})
    metadata = open_metadata("x", root=root)
    here = count_stats(metadata)
    with Processes(2) as processes:
        there = count_stats(metadata, run=processes)
    for name, entry in here.items():
        for statistic, value in entry.items():
            assert np.array_equal(value, there[name][statistic]), (name, statistic)


def test_how_rows_are_split_over_files_does_not_matter(tmp_path):
    stats = []
    for files in ("one", "many"):
        root = make_dataset(tmp_path / files, files=files)
        metadata = open_metadata("x", root=root)
        columns = [spec for spec in metadata.features.values() if spec.is_numeric]
        paths = metadata.storage.glob("data/*/*.parquet")
        stats.append(tabular_stats([(metadata.storage, path) for path in paths], columns))
    for name, entry in stats[0].items():
        for statistic, value in entry.items():
            assert np.array_equal(value, stats[1][name][statistic]), (name, statistic)


def test_a_column_of_another_width_is_named():
    import pyarrow as pa

    from lerobot_ray.core.errors import DatasetError

    spec = FeatureSpec("action", "float32", (3,))
    with pytest.raises(DatasetError, match=r"f\.parquet: column action holds 4 numbers in 2 rows"):
        column_array(pa.chunked_array([[[1.0, 2.0], [3.0, 4.0]]]), spec, where="f.parquet")
