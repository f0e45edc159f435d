"""Writes tests/data/goldens_progress: files of task progress, and the weights LeRobot gives their frames.

    python tests/data/make_progress_goldens.py        # an interpreter that has LeRobot

The committed files were made with lerobot 0.6.1, torch 2.11.0, pandas 2.3.3, Python 3.12.1. `test_progress.py` compares
our weights with them. LeRobot scales the weights of a batch by their mean; that is undone here by asking for the ones
before, whose arithmetic it keeps in `_compute_weights`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from lerobot.rewards.sarm.rabc import RABCWeights

GOLDENS = Path(__file__).parent / "goldens_progress"
CASES = {
    "usual": {"chunk_size": 5, "kappa": 0.01},
    "long chunk": {"chunk_size": 50, "kappa": 0.2},
    "much in part": {"chunk_size": 3, "kappa": 0.5, "epsilon": 1e-3},
    "fallback": {"chunk_size": 8, "kappa": 0.01, "fallback_weight": 0.25},
    "dense": {"chunk_size": 5, "kappa": 0.05, "head_mode": "dense"},
}


def main() -> None:
    GOLDENS.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    episode = np.repeat([0, 1, 2, 3], [40, 7, 60, 30])
    index = np.arange(len(episode))
    columns = {"index": index, "episode_index": episode}
    for head in ("sparse", "dense"):
        columns[f"progress_{head}"] = np.clip(np.cumsum(rng.normal(0.01, 0.04, len(index))), -1, 1).astype(np.float32)
    columns["progress_sparse"][[3, 4, 50, 51, 106]] = np.nan
    table = pd.DataFrame(columns).drop(index=[70, 71, 136]).sample(frac=1, random_state=3)
    table.to_parquet(GOLDENS / "progress.parquet", index=False)
    found = {}
    for name, settings in CASES.items():
        weights = RABCWeights(GOLDENS / "progress.parquet", device="cpu", **settings)
        gains = np.array([weights._compute_delta(int(row)) for row in index], dtype=np.float32)
        found[name] = weights._compute_weights(gains)
    np.savez(GOLDENS / "weights.npz", **found)


if __name__ == "__main__":
    main()
