"""A sweep that starts Ray itself, in a shell where nothing was set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sweeps.sweeps import command, table, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_nothing_has_to_be_set_and_nothing_is_left_in_the_home_folder(toy_root, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "LEROBOT_RAY_CACHE": str(tmp_path / "cache")}
    file = write_sweep(tmp_path, searcher="grid", num_trials=None, parameters={"optimizer.lr": [1e-3]})
    arguments = command(toy_root, file, tmp_path / "out", "--steps=2", "--log_freq=1", "--save_freq=2")
    done = subprocess.run(
        [sys.executable, "-m", "lerobot_ray.tune", *arguments],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert any("finished" in line for line in table(tmp_path / "out"))
    assert not (home / ".ray").exists()
