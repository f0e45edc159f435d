"""A run on a cluster that has nothing yet: it waits and says for what, nodes come, it trains, nodes go."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def story(tmp_path_factory, request):
    """The benchmark's own story, from a process that is connected to no other Ray."""
    out = tmp_path_factory.mktemp("autoscaling") / "story.json"
    script = request.config.rootpath / "benchmarks" / "autoscaling.py"
    arguments = ["--steps=12", "--idle-s=5", "--within-s=400", f"--json={out}"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=420, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(out.read_text())


@pytest.mark.ray
@pytest.mark.slow
def test_nodes_come_training_starts_nodes_go(story):
    assert story["exit_code"] == 0, story["log"]
    at = {}
    for seconds, what in story["events"]:
        at.setdefault(what, seconds)
    assert at["2 train nodes"] <= at["first step"]
    assert at["1 decode nodes"] <= at["first step"]
    assert at["first step"] < at["run over"]
    # what has no more to do goes, while the driver may still write its report
    assert at["first step"] < at["0 train nodes"]
    assert at["1 decode nodes"] < at["0 decode nodes"]


@pytest.mark.ray
@pytest.mark.slow
def test_the_run_says_what_it_waits_for(story):
    assert "waiting for 2 workers with 1 CPU, 1 accelerator: the cluster has room for 0 on 1 node" in story["log"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_can_never_fit_is_told_the_maximum(story):
    code, text = story["too_large"].split(" ", 1)
    assert code == "2"
    assert "3 workers with 1 CPU, 1 accelerator each do not fit" in text
    assert "may grow to" in text
    assert "2 × train (1 CPU, 1 accelerator)" in text
    assert "at its most it has room for 2." in text
