from __future__ import annotations

import json

import numpy as np
import pytest

from lerobot_ray.report_page.coverage import Coverage, load_coverage
from lerobot_ray.tracking.metric_log import load_metrics
from tests.report_runs import RunShape, make_run


def facts_of(folder):
    return load_metrics(folder).attempts[-1].info["facts"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two and a bit epochs, with a kill in between."""
    return make_run(
        tmp_path_factory.mktemp("run"), RunShape(steps=200, cuts=((130, 100, 0.1),), episodes=10, has_eval=False)
    )


def test_uses_are_counted_without_the_steps_taken_back(run):
    coverage = load_coverage(run, facts_of(run))
    assert isinstance(coverage, Coverage)
    assert coverage.rows == coverage.uses.sum() == 200 * 8
    num_samples = facts_of(run)["num_samples"]
    assert len(coverage.uses) == num_samples
    assert set(coverage.uses.tolist()) == {1600 // num_samples, 1600 // num_samples + 1}
    *whole, last = coverage.epochs
    assert whole == [1.0] * (1600 // num_samples)
    assert last == pytest.approx(1600 % num_samples / num_samples)


def test_without_facts_episodes_are_those_seen(run):
    coverage = load_coverage(run, {})
    assert coverage.epochs is None
    assert coverage.episodes.tolist() == list(range(10))
    assert coverage.rows == 1600


def test_an_episode_never_used_is_counted_as_such(run):
    facts = facts_of(run)
    known = {**facts, "episodes": [*facts["episodes"], 99], "episode_samples": [*facts["episode_samples"], 7]}
    coverage = load_coverage(run, known)
    assert coverage.episodes[-1] == 99
    assert coverage.uses[-7:].tolist() == [0] * 7


def test_a_part_that_is_missing_is_said(tmp_path):
    make_run(tmp_path, RunShape(steps=50, has_eval=False))
    next((tmp_path / "audit").glob("attempt-0001/rank-00001-*")).unlink()
    said = load_coverage(tmp_path, facts_of(tmp_path))
    assert said == "The audit has no complete step yet."
    assert "kept no record" in load_coverage(tmp_path / "elsewhere", {})


def test_an_audit_that_does_not_add_up_says_where(tmp_path):
    make_run(tmp_path, RunShape(steps=50, cuts=((30, 20, 0.1),), has_eval=False))
    path = tmp_path / "audit" / "attempt-0002" / "_attempt.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "samples_seen": 168}))
    said = load_coverage(tmp_path, facts_of(tmp_path))
    assert said.startswith("The audit does not add up: ")
    assert "stream index 168" in said


def test_a_sample_used_twice_does_not_fill_an_epoch():
    from lerobot_ray.report_page.coverage import _epochs

    assert _epochs(np.arange(8), np.array([0, 1, 2, 2, 0, 1, 2, 3]), 4) == (0.75, 1.0)
    assert _epochs(np.arange(6, 10), np.array([2, 3, 0, 1]), 4) == (0.0, 0.5, 0.5)
