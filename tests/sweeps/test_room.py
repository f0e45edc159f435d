"""How many trials fit: never one whose pieces would wait for another's."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.sweeps.room import DECODER, TrialNeeds, concurrency, decoders_each, trials_that_fit

ONE = TrialNeeds(workers=1, per_worker={"CPU": 1.0}, decoders=1)
GPU = TrialNeeds(workers=2, per_worker={"CPU": 1.0, "GPU": 1.0}, decoders=2)


def test_workers_and_their_decoders_take_room():
    assert trials_that_fit(ONE, [{"CPU": 8}]) == 4
    assert trials_that_fit(ONE, [{"CPU": 1}, {"CPU": 1}, {"CPU": 1}]) == 1
    assert trials_that_fit(GPU, [{"CPU": 64, "GPU": 8}]) == 4
    assert trials_that_fit(GPU, [{"CPU": 6, "GPU": 8}]) == 1, "CPUs are what is short"
    halves = TrialNeeds(workers=1, per_worker={"CPU": 1.0, "GPU": 0.5}, decoders=1)
    assert trials_that_fit(halves, [{"CPU": 64, "GPU": 2}]) == 4


def test_more_than_fit_is_refused_and_said():
    with pytest.raises(ConfigError, match=r"max_concurrent=5, but 4 fit at once: a trial needs .* has 8 CPU"):
        concurrency(ONE, [{"CPU": 8}], asked=5, is_here=False)
    with pytest.raises(ConfigError, match="not even one trial fits"):
        concurrency(GPU, [{"CPU": 8}], asked=None, is_here=False)
    assert concurrency(ONE, [{"CPU": 8}], asked=None, is_here=False) == 4
    assert concurrency(ONE, [{"CPU": 8}], asked=3, is_here=False) == 3
    assert concurrency(ONE, [{"CPU": 1}], asked=50, is_here=False, may_grow=True) == 50


def test_here_decoders_share_the_cores():
    assert concurrency(ONE, [{"CPU": 2}], asked=None, is_here=True) == 1
    assert concurrency(ONE, [{"CPU": 2}], asked=2, is_here=True) == 2
    assert concurrency(ONE, [{"CPU": 1}], asked=None, is_here=True) == 1
    with pytest.raises(ConfigError, match="2 fit at once"):
        concurrency(ONE, [{"CPU": 2}], asked=3, is_here=True)


def test_rollouts_take_room_too_and_share_the_cores_here():
    played = dataclasses.replace(ONE, rollouts=1)
    assert trials_that_fit(played, [{"CPU": 8}]) == 2
    assert "1 × (1 CPU) for rollouts" in str(played)
    assert decoders_each(played, [{"CPU": 8}], 2) == 2
    assert concurrency(played, [{"CPU": 2}], asked=2, is_here=True) == 2
    on_gpu = dataclasses.replace(played, per_rollout={"CPU": 1.0, "GPU": 0.5})
    with pytest.raises(ConfigError, match="not even one trial fits"):
        concurrency(on_gpu, [{"CPU": 8}], asked=None, is_here=False)


nodes = st.lists(
    st.fixed_dictionaries({"CPU": st.integers(0, 16), "GPU": st.integers(0, 4)}).map(
        lambda node: {name: float(amount) for name, amount in node.items()}
    ),
    min_size=1,
    max_size=4,
)


@given(nodes, st.integers(1, 3), st.sampled_from([{"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}, {"GPU": 0.5, "CPU": 1.0}]))
def test_what_is_promised_is_there(cluster, workers, each):
    """All trials together, with the decoders they will be given, take no more than there is."""
    needs = TrialNeeds(workers=workers, per_worker=each, decoders=workers)
    count = trials_that_fit(needs, cluster)
    if not count:
        return
    decoders = decoders_each(needs, cluster, count)
    cpus = count * workers * (each.get("CPU", 0) + decoders * DECODER["CPU"])
    assert cpus <= sum(node["CPU"] for node in cluster) + 1e-6
    assert count * workers * each.get("GPU", 0) <= sum(node["GPU"] for node in cluster) + 1e-6
