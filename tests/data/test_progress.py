"""Weights by task progress: LeRobot's numbers, and what is said about a file that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.progress import PROGRESS_FILE, find_progress, progress_weights, read_progress
from lerobot_ray.data.sample_weights import SampleWeights
from tests.data.tables import table_of

GOLDENS = Path(__file__).parent / "goldens_progress"
CASES = {
    "usual": {"chunk": 5, "kappa": 0.01},
    "long chunk": {"chunk": 50, "kappa": 0.2},
    "much in part": {"chunk": 3, "kappa": 0.5, "epsilon": 1e-3},
    "fallback": {"chunk": 8, "kappa": 0.01, "fallback": 0.25},
    "dense": {"chunk": 5, "kappa": 0.05},
}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_lerobots(name):
    column = "progress_dense" if name == "dense" else "progress_sparse"
    progress, last = read_progress(GOLDENS / "progress.parquet", column=column, num_frames=137)
    weights = progress_weights(progress, last, **{"epsilon": 1e-6} | CASES[name])
    with np.load(GOLDENS / "weights.npz") as wanted:
        np.testing.assert_allclose(weights, wanted[name], rtol=1e-6)
    assert 0 < (weights == 1).sum() < len(weights)
    assert (weights == 0).any()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_weighted_mean_is_the_same_however_the_batch_is_split(world_size):
    selection = select_episodes(table_of([15, 25, 12, 20]), drop_n_last_frames=2)
    order = build_order("frames", num_samples=selection.num_samples, seed=0, episode_lengths=selection.lengths)
    rng = np.random.default_rng(0)
    raw = rng.choice([0, 0.3, 1], 72).astype(np.float32)
    losses = rng.random(72)
    weights = SampleWeights(raw)
    shares = np.zeros((6, world_size, 8 // world_size // 2))
    for rank in range(world_size):
        plan = StreamPlan(
            order=order, global_batch=8, micro_batch=2, world_size=world_size, rank=rank, start=5,
            micro_batches_per_block=8 // world_size // 2,
        )  # fmt: skip
        for number in range(6):
            block = plan.block(number)
            scaled = weights.of(block.sample_ids, block.step, plan=plan, selection=selection)
            shares[number, rank] = (scaled * losses[selection.locate(block.sample_ids)[1]]).mean(axis=1)
    for step in range(6):
        rows = selection.locate(order.samples(5 + 8 * step + np.arange(8)))[1]
        assert np.isclose(shares[step].mean(), np.average(losses[rows], weights=raw[rows]), rtol=1e-5)


def test_a_step_of_nothing_but_zeros_has_no_loss():
    selection = select_episodes(table_of([16]))
    order = build_order("sequential", num_samples=16, seed=0, episode_lengths=selection.lengths)
    plan = StreamPlan(order=order, global_batch=4, micro_batch=4, world_size=1, rank=0)
    block = plan.block(0)
    weights = SampleWeights(np.zeros(16, np.float32)).of(block.sample_ids, block.step, plan=plan, selection=selection)
    assert weights.tolist() == [[0, 0, 0, 0]]


def test_files_that_do_not_fit(tmp_path, toy_root):
    def written(**columns) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "progress.parquet")
        return tmp_path / "progress.parquet"

    path = written(index=[5], episode_index=[0], progress_sparse=[0.1])
    with pytest.raises(DatasetError, match="has no column progress_dense"):
        read_progress(path, column="progress_dense", num_frames=5)
    with pytest.raises(DatasetError, match="speaks of frame 5, the dataset has 5"):
        read_progress(path, column="progress_sparse", num_frames=5)
    metadata = open_metadata("tests/toy", root=toy_root)
    with pytest.raises(ConfigError, match=f"has no {PROGRESS_FILE}, .* --sample_weighting.progress_path"):
        find_progress(metadata, None)
    with pytest.raises(ConfigError, match="there is no file"):
        find_progress(metadata, str(tmp_path / "nowhere.parquet"))
    assert find_progress(metadata, str(path)) == path
    assert find_progress(metadata, path.as_uri()).read_bytes() == path.read_bytes()
