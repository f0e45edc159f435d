"""Blocks large enough to be worth it lie in the training process's own memory, and are the same blocks."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.sample import BlockReader, SampleSpec
from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions
from lerobot_ray.on_ray.landing import NAME
from tests.make_dataset import make_dataset
from tests.on_ray.runs import decoder_pids

pytestmark = pytest.mark.ray
CAMERA = "observation.images.front"
SAMPLES = 64


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    root = make_dataset(tmp_path_factory.mktemp("large") / "ds", cameras={CAMERA: (128, 192)})
    metadata = open_metadata("tests/large", root=root)
    return SampleSpec(metadata, select_episodes(metadata.episodes), offsets={"action": [0, 1, 2]})


def make_plan(spec: SampleSpec) -> StreamPlan:
    selection = spec.selection
    order = build_order("frames", num_samples=selection.num_samples, seed=3, episode_lengths=selection.lengths)
    return StreamPlan(
        order=order, global_batch=8, micro_batch=8, world_size=1, rank=0, micro_batches_per_block=SAMPLES // 8
    )


def lies_in_a_landing_place(array: np.ndarray) -> bool:
    with open("/proc/self/maps") as maps:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if begin <= array.ctypes.data < end:
                return NAME in line
    raise AssertionError("an array without memory")


def assert_is_block(block, number: int, plan: StreamPlan, reader: BlockReader) -> None:
    assert block.plan.number == number
    wanted = reader.read(plan.block(number).sample_ids.ravel())
    for name in (CAMERA, "action", "index"):
        assert np.array_equal(block.columns[name], wanted[name]), name


def test_blocks_are_written_where_they_are_read(ray_cluster, spec):
    plan, reader = make_plan(spec), BlockReader(spec)
    with BlockStream(spec, plan, num_blocks=20, options=IngestOptions(num_decoders=2, segment_blocks=8)) as stream:
        for number, block in enumerate(stream):
            assert_is_block(block, number, plan, reader)
            assert lies_in_a_landing_place(block.columns[CAMERA])
            assert not lies_in_a_landing_place(block.columns["index"])
    assert number == 19


def test_who_keeps_blocks_gets_the_next_ones_through_the_object_store(ray_cluster, spec):
    """More of them than there are places; what is kept is not written over."""
    plan, reader = make_plan(spec), BlockReader(spec)
    with BlockStream(spec, plan, options=IngestOptions(num_decoders=2)) as stream:
        kept = [next(stream) for _ in range(15)]
        landed = [lies_in_a_landing_place(block.columns[CAMERA]) for block in kept]
        assert 1 < sum(landed) < 15
        for number, block in enumerate(kept):
            assert_is_block(block, number, plan, reader)
        del kept, block
        assert any(lies_in_a_landing_place(next(stream).columns[CAMERA]) for _ in range(15))


def test_actors_killed_while_they_write_change_nothing(ray_cluster, spec):
    plan, reader = make_plan(spec), BlockReader(spec)
    killed, landed = 0, 0
    with BlockStream(spec, plan, num_blocks=30, options=IngestOptions(num_decoders=2, buffered_blocks=1)) as stream:
        for number, block in enumerate(stream):
            assert_is_block(block, number, plan, reader)
            landed += lies_in_a_landing_place(block.columns[CAMERA])
            if number in (3, 8, 14):
                for pid in decoder_pids():
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    assert number == 29
    assert killed
    assert landed > 15


def test_a_system_that_refuses_the_memory_gets_its_blocks_through_the_object_store(ray_cluster, spec, monkeypatch):
    def refused(name: str) -> int:
        raise PermissionError(1, "not permitted", name)

    monkeypatch.setattr(os, "memfd_create", refused)
    plan, reader = make_plan(spec), BlockReader(spec)
    with BlockStream(spec, plan, num_blocks=3, options=IngestOptions(num_decoders=1)) as stream:
        for number, block in enumerate(stream):
            assert_is_block(block, number, plan, reader)
            assert not lies_in_a_landing_place(block.columns[CAMERA])
    assert number == 2
