"""What fits on a cluster now and when it has grown, and how a run that waits says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.on_ray.capacity import Capacity, NodeType, fitting, in_words, types_of
from lerobot_ray.on_ray.cluster import Workers, workers_within
from lerobot_ray.on_ray.placement import place_decoders
from lerobot_ray.on_ray.waiting import PATIENCE_S, Waiting, is_unplaced, what_is_missing

HEAD = {"memory": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 2.0}
WORKER = {"CPU": 1.0, "GPU": 1.0}
GROWING = Capacity((HEAD,), (NodeType("gpu", GPU_NODE, 3), NodeType("decode", {"CPU": 4.0}, 2)), grows=True)


def workers(count: int, fewest: int | None = None) -> Workers:
    return Workers(count=count, fewest=fewest or count, use_gpu=True, resources=WORKER)


def test_room_is_counted_node_by_node():
    assert fitting(GPU_NODE, WORKER) == 2
    assert fitting({"CPU": 0.3}, {"CPU": 0.1}) == 3
    assert fitting(HEAD, WORKER) == 0
    split = Capacity(({"CPU": 1, "GPU": 0}, {"CPU": 0, "GPU": 1}))
    assert split.room(WORKER) == 0, "a CPU here and a GPU there hold no worker"


def test_a_growing_cluster_counts_what_it_may_become():
    assert (GROWING.now("GPU"), GROWING.at_most("GPU"), GROWING.at_most("CPU")) == (0, 6, 32)
    assert (GROWING.room(WORKER), GROWING.room_at_most(WORKER)) == (0, 6)
    endless = Capacity((HEAD,), (NodeType("gpu", GPU_NODE, None),), grows=True)
    assert endless.room_at_most(WORKER) == math.inf
    assert endless.at_most("GPU") == math.inf


def test_a_run_too_large_is_told_the_maximum():
    assert workers_within(GROWING, RayConfig(num_workers=6), None).use_gpu
    with pytest.raises(
        ConfigError, match=r"3 × gpu \(8 CPU, 2 GPU\), 2 × decode \(4 CPU\); at its most it has room for 6"
    ):
        workers_within(GROWING, RayConfig(num_workers=7), None)
    assert workers_within(GROWING, RayConfig(num_workers=9, min_workers=2), None).fewest == 2
    assert workers_within(GROWING, RayConfig(), None).count == 1, "what is there now, at least one"
    assert not workers_within(GROWING, RayConfig(), "cpu").use_gpu


def test_a_fixed_cluster_is_told_what_it_holds():
    fixed = Capacity((HEAD, GPU_NODE))
    assert workers_within(fixed, RayConfig(), None).count == 2
    with pytest.raises(
        ConfigError, match=r"holds 2 GPU, 8 CPU on 2 nodes, room for 2\. Lower --ray.num_workers .*add nodes"
    ):
        workers_within(fixed, RayConfig(num_workers=3), None)


CPU_NODE = {"CPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "device", "settings", "count"),
    [
        ((HEAD, CPU_NODE), None, {"num_workers": 8}, 8),
        ((HEAD, GPU_NODE, GPU_NODE), None, {}, 4),
        ((HEAD, GPU_NODE), "cpu", {"num_workers": 8}, 8),
        ((CPU_NODE,), None, {"num_workers": 20, "min_workers": 2}, 20),
    ],
)
def test_what_fits_on_a_fixed_cluster(nodes, device, settings, count):
    assert workers_within(Capacity(nodes), RayConfig(**settings), device).count == count


@pytest.mark.parametrize(
    ("nodes", "settings", "said"),
    [
        ((HEAD,), {}, "holds 0 CPU on 1 node, room for 0"),
        ((CPU_NODE,), {"num_workers": 9}, "holds 8 CPU on 1 node, room for 8"),
        ((CPU_NODE, CPU_NODE), {"resources_per_worker": {"CPU": 9}}, "holds 16 CPU on 2 nodes, room for 0"),
        ((GPU_NODE,), {"num_workers": 5, "use_gpu": True}, "holds 2 GPU, 8 CPU"),
        ((CPU_NODE,), {"use_gpu": True}, "use_gpu=true, but the cluster at x has no GPU"),
        ((), {}, "on 0 nodes, room for 0"),
    ],
)
def test_what_a_fixed_cluster_never_holds(nodes, settings, said):
    with pytest.raises(ConfigError, match=said):
        workers_within(Capacity(nodes), RayConfig(**settings), None, where="the cluster at x")


def test_what_is_missing_names_it():
    text = what_is_missing(workers(2), GROWING, {}, "2 × gpu are being started")
    assert text == (
        "waiting for 2 workers with 1 CPU, 1 GPU: the cluster has room for 0 on 1 node; 2 × gpu are being started"
    )
    assert "its autoscaler has been asked" in what_is_missing(workers(2), GROWING, {}, "")
    fixed = Capacity((GPU_NODE,))
    assert "add nodes" in what_is_missing(workers(3), fixed, {}, "")
    assert "others use the cluster, 7 of 8 CPU, 0 of 2 GPU free" in what_is_missing(workers(2), fixed, {"CPU": 7}, "")
    after_a_loss = what_is_missing(workers(4, fewest=2), fixed, GPU_NODE, "")
    assert after_a_loss.startswith("room for 2 of 4 workers: they start within a minute")


@pytest.mark.parametrize(("state", "is_waiting"), [("PENDING", True), ("RESCHEDULING", True), ("CREATED", False)])
def test_workers_wait_while_their_placement_does(state, is_waiting):
    group = {"state": state, "bundles": {0: WORKER, 1: WORKER}}
    assert is_unplaced(workers(2), [group]) == is_waiting
    assert is_unplaced(workers(3, fewest=1), [group]) == is_waiting
    assert not is_unplaced(workers(3), [group]), "another run's"


def test_a_run_that_hears_from_its_workers_says_nothing():
    now = [0.0]
    waiting = Waiting(workers(2), clock=lambda: now[0])
    for _ in range(100):
        now[0] += PATIENCE_S / 2
        waiting.heard()
        assert waiting.news() == ""


def test_what_the_autoscaler_does_in_words():
    assert in_words({"gpu": 2, "spot": 0}, {}, False) == "2 × gpu are being started"
    assert in_words({"gpu": 1}, {"spot": "no capacity\nmore"}, True) == (
        "1 × gpu is being started; spot could not be started (no capacity)"
    )
    assert "its limits are reached" in in_words({}, {}, True)
    assert in_words({}, {}, False) == ""


def test_the_autoscalers_file_says_what_it_may_start():
    file = Path(__file__).parents[2] / "clusters" / "aws" / "cluster.yaml"
    config = yaml.safe_load(file.read_text())
    capacity = Capacity((HEAD,), types_of(config), True, config["max_workers"])
    assert [(kind.name, kind.most) for kind in capacity.types] == [
        ("gpu_spot", 4),
        ("gpu", 4),
        ("decode_spot", 8),
        ("decode", 8),
    ]
    assert capacity.room_at_most(WORKER) == 8
    assert capacity.at_most("CPU") == 12 * 16, "twelve machines together, of whatever kind"
    assert Capacity((HEAD,), capacity.types, True, 3).room_at_most(WORKER) == 3


def test_decoders_prefer_nodes_without_gpus():
    placed = place_decoders("g1", gpu_nodes=["g2", "g1"], has_cpu_only=True)
    assert placed.first == {"ray.io/node-id": "!in(g1,g2)"}
    assert placed.then == ({"ray.io/node-id": "g1"}, {})
    for here, gpu_nodes, has_cpu_only in (("c1", ["g1"], True), ("g1", ["g1"], False), ("c1", [], True)):
        near = place_decoders(here, gpu_nodes=gpu_nodes, has_cpu_only=has_cpu_only)
        assert near.first == {"ray.io/node-id": here}, "near the training process"
    labelled = place_decoders("g1", gpu_nodes=["g1"], has_cpu_only=True, labels={"zone": "a"})
    assert all(selector["zone"] == "a" for selector in (labelled.first, *labelled.then))
