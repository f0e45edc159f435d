"""Who takes over from whom, and what a neighbour of a value is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints, new_checkpoint
from lerobot_ray.sweeps.population import exploits, generations, nudged
from lerobot_ray.sweeps.space import read_values
from lerobot_ray.sweeps.takeover import install, set_aside
from tests.sweeps.sweeps import plan_of

VALUES = {trial: {"optimizer.lr": 10.0 ** -(trial + 1)} for trial in range(4)}


@pytest.fixture
def sweep(tmp_path):
    return plan_of(tmp_path, "--log_freq=10", scheduler={"type": "pbt", "interval": 30, "resample": 0}).sweep


def test_the_worst_go_on_from_the_best(sweep):
    scores = {0: 3.0, 1: 0.5, 2: 1.0, 3: None}
    (found,) = exploits(sweep, scores, VALUES, generation=1)
    assert (found.trial, found.donor) == (3, 1)
    assert found.values["optimizer.lr"] in (0.008, 0.012)
    assert exploits(sweep, scores, VALUES, generation=1) == [found], "a resume decides the same"


def test_nobody_takes_over_from_a_trial_without_a_value(sweep):
    assert exploits(sweep, dict.fromkeys(range(4)), VALUES, generation=1) == []


def test_generations_end_with_the_run():
    assert generations(100, 30) == [30, 60, 90, 100]
    assert generations(60, 30) == [30, 60]


def test_neighbours_stay_within():
    generator = np.random.default_rng(0)
    lr, size, batch = (
        read_values(text, where="x") for text in ("loguniform(1e-5, 1e-3)", [8, 16, 32], "randint(4, 9)")
    )
    for _ in range(20):
        assert nudged(1e-3, lr, generator) in (8e-4, 1e-3)
        assert nudged(16, size, generator) in (8, 32)
        assert nudged(8, size, generator) in (8, 16)
        assert 4 <= nudged(8, batch, generator) <= 8


def test_a_taken_over_checkpoint_replaces_ones_own(tmp_path):
    def save(folder, step, text):
        with new_checkpoint(folder, step, total_steps=100) as writing:
            (writing / "weights").write_text(text)

    donor, trial = tmp_path / "donor", tmp_path / "trial"
    for step in (10, 20):
        save(donor, step, f"donor {step}")
    for step in (10, 20, 30):
        save(trial, step, "own")
    assert set_aside(donor, trial, generation=2) == "000020"
    assert len(complete_checkpoints(trial)) == 3, "nothing is lost before the journal says so"
    assert install(trial, generation=2)
    (kept,) = complete_checkpoints(trial)
    assert (kept.name, (kept / "weights").read_text()) == ("000020", "donor 20")
    assert (trial / "checkpoints" / "last").resolve() == kept.resolve()
    assert json.loads((kept / "manifest.json").read_text())
    assert not install(trial, generation=2), "a resume may try again"
    save(donor, 20, "donor went on")
    assert (kept / "weights").read_text() == "donor 20"
