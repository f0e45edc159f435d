"""Statistics counted by a Ray cluster are those of one process."""

from __future__ import annotations

import numpy as np
import pytest

from lerobot_ray.core.errors import StorageError
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.recount import count_stats
from tests.make_dataset import make_dataset

pytestmark = pytest.mark.ray


def test_the_cluster_counts_what_one_process_counts(ray_cluster, tmp_path):
    from lerobot_ray.on_ray.stats import count_stats_on_ray

    root = make_dataset(
        tmp_path / "toy",
        files="many",
        cameras={"observation.images.front": (64, 96)},
        depth_images={"observation.depth": (32, 48)},
        matrix=True,
    )
    metadata = open_metadata("tests/toy", root=root)
    here, there = count_stats(metadata), count_stats_on_ray(metadata)
    assert list(here) == list(there)
    for name, entry in here.items():
        for statistic, value in entry.items():
            assert np.array_equal(value, there[name][statistic]), f"{name} {statistic}"


def test_a_missing_file_is_reported_as_itself(ray_cluster, tmp_path):
    from lerobot_ray.on_ray.stats import count_stats_on_ray

    root = make_dataset(tmp_path / "toy", files="many", episodes=(4, 4))
    metadata = open_metadata("tests/toy", root=root)
    (root / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(StorageError, match=r"file-001\.parquet is missing"):
        count_stats_on_ray(metadata, cameras=False)
