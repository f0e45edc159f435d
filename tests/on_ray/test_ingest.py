"""The stream through Ray: the samples of the plan, in order, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from lerobot_ray.core.errors import FrameError, StreamError
from lerobot_ray.data.bad_episodes import SkippingOrder, agreed_index
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.sample import BlockReader, SampleSpec
from lerobot_ray.on_ray import ingest
from lerobot_ray.on_ray.decode import BLOCKS_AHEAD, DecodeBlocks
from lerobot_ray.on_ray.framing import unframe_block
from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions
from tests.make_dataset import make_dataset
from tests.on_ray.runs import decoder_pids

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> SampleSpec:
    root = make_dataset(tmp_path_factory.mktemp("ingest") / "ds", files="many")
    metadata = open_metadata("test/ingest", root=root)
    return SampleSpec(
        metadata=metadata, selection=select_episodes(metadata.episodes), offsets={"action": list(range(4))}
    )


def make_plan(
    spec: SampleSpec, *, rank: int = 0, world_size: int = 1, start: int = 0, order: str = "frames"
) -> StreamPlan:
    selection = spec.selection
    return StreamPlan(
        order=build_order(
            "frames", num_samples=selection.num_samples, seed=3, episode_lengths=np.diff(selection.starts)
        ),
        global_batch=8,
        micro_batch=4,
        world_size=world_size,
        rank=rank,
        start=start,
        micro_batches_per_block=3,
    )


def assert_is_what_the_plan_says(block, reader: BlockReader, plan: StreamPlan, number: int) -> None:
    wanted = plan.block(number)
    assert block.plan.number == number
    assert np.array_equal(block.columns["stream_index"], wanted.stream_indices.ravel())
    for name, value in reader.read(wanted.sample_ids.ravel()).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(block.columns[name], value), name
        else:
            assert block.columns[name] == value, name


def wait_for_no_decoders() -> None:
    deadline = time.monotonic() + 30
    while decoder_pids():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_blocks_come_in_order_and_hold_what_the_plan_says(ray_cluster, spec):
    """Over several segments, past the end of an epoch, from the middle."""
    plan, reader = make_plan(spec, start=16), BlockReader(spec)
    options = IngestOptions(num_decoders=2, segment_blocks=4)
    with BlockStream(spec, plan, first_block=2, num_blocks=10, options=options) as stream:
        for number, block in enumerate(stream, start=2):
            assert_is_what_the_plan_says(block, reader, plan, number)
    assert number == 11
    assert stream.wait_s > 0


def test_ranks_side_by_side_serve_the_same_global_batches_as_one(ray_cluster, spec):
    alone = make_plan(spec)
    plans = [make_plan(spec, rank=rank, world_size=2) for rank in (0, 1)]
    streams = [BlockStream(spec, plan, num_blocks=4) for plan in plans]
    seen: dict[int, set[int]] = {}
    for stream in streams:
        with stream:
            for block in stream:
                for step, indices in zip(block.plan.step, block.plan.stream_indices, strict=True):
                    seen.setdefault(int(step), set()).update(indices.tolist())
    assert seen == {step: set(range(8 * step, 8 * step + 8)) for step in range(len(seen))}
    assert alone.block(0).stream_indices.min() == 0


def test_a_killed_decode_actor_changes_nothing(ray_cluster, spec):
    plan, reader = make_plan(spec), BlockReader(spec)
    killed = []
    with BlockStream(spec, plan, num_blocks=30, options=IngestOptions(num_decoders=2, buffered_blocks=1)) as stream:
        for number, block in enumerate(stream):
            assert_is_what_the_plan_says(block, reader, plan, number)
            if number in (2, 9):
                killed += decoder_pids()
                for pid in decoder_pids():
                    os.kill(pid, signal.SIGKILL)
    assert number == 29
    assert killed


@pytest.mark.slow
def test_actors_stay_while_decoding_waits_for_training(ray_cluster, spec):
    """Ray Data looks at idle actors from ten seconds after the last one's start."""
    wait_for_no_decoders()
    options = IngestOptions(num_decoders=2, buffered_blocks=1, object_store_bytes=4 << 20)
    with BlockStream(spec, make_plan(spec), options=options) as stream:
        while len(decoder_pids()) < 2:
            next(stream)
        before, until = set(decoder_pids()), time.monotonic() + 22
        while time.monotonic() < until:
            next(stream)
            time.sleep(0.05)
        assert set(decoder_pids()) == before


def test_closing_early_frees_the_decoders(ray_cluster, spec):
    with BlockStream(spec, make_plan(spec), options=IngestOptions(num_decoders=2)) as stream:
        next(stream)
        assert decoder_pids()
    wait_for_no_decoders()


def test_a_frame_that_cannot_be_decoded_stops_the_stream_with_its_name(ray_cluster, tmp_path):
    root = make_dataset(tmp_path / "broken", files="many")
    metadata = open_metadata("test/broken", root=root)
    spec = SampleSpec(metadata=metadata, selection=select_episodes(metadata.episodes), offsets={})
    broken = sorted((root / "videos").rglob("*.mp4"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(FrameError, match=broken.name), BlockStream(spec, make_plan(spec), num_blocks=30) as stream:
        list(stream)


def test_an_episode_that_cannot_be_read_is_replaced_when_asked(ray_cluster, tmp_path):
    root = make_dataset(tmp_path / "broken", files="many")
    metadata = open_metadata("test/broken", root=root)
    spec = SampleSpec(metadata, select_episodes(metadata.episodes))
    broken = sorted((root / "videos").rglob("*.mp4"))[2]
    broken.write_bytes(broken.read_bytes()[:200])
    plan = make_plan(spec)
    plan = replace(plan, order=SkippingOrder(plan.order, spec.selection))
    with BlockStream(spec, plan, num_blocks=12, options=IngestOptions(num_decoders=2)) as stream:
        blocks = list(stream)
        assert stream.unreadable == {2}
    indices = np.concatenate([block.columns["stream_index"] for block in blocks])
    assert np.array_equal(indices, np.arange(12 * 12))
    planned = np.concatenate([block.plan.sample_ids.ravel() for block in blocks])
    got = np.concatenate([block.columns["sample_id"] for block in blocks])
    was_bad = spec.selection.locate(planned)[0] == 2
    assert was_bad.any()
    assert np.array_equal(got[~was_bad], planned[~was_bad])
    assert not np.any(np.concatenate([block.columns["episode_index"] for block in blocks]) == 2)


def test_without_actors_the_process_decodes_by_itself(spec):
    """`num_workers=0`: the same blocks, and no Ray at all."""
    plan, reader = make_plan(spec, start=16), BlockReader(spec)
    with BlockStream(spec, plan, first_block=1, num_blocks=5, options=IngestOptions(num_decoders=0)) as stream:
        for number, block in enumerate(stream, start=1):
            assert_is_what_the_plan_says(block, reader, plan, number)
    assert number == 5


def test_an_episode_is_dropped_by_all_ranks_from_one_stream_index_on(spec):
    """Two ranks at different places in the stream agree; what each had handed out before stays as it was."""
    inner = make_plan(spec).order
    order = SkippingOrder(inner, spec.selection)
    plans = [replace(make_plan(spec, rank=rank, world_size=2), order=order) for rank in (0, 1)]
    options = IngestOptions(num_decoders=0, buffered_blocks=2)
    with (
        BlockStream(spec, plans[0], num_blocks=40, options=options) as one,
        BlockStream(spec, plans[1], num_blocks=40, options=options) as other,
    ):
        streams = (one, other)
        blocks = [[next(one) for _ in range(9)], [next(other) for _ in range(4)]]
        held = [stream.hold() for stream in streams]
        index = agreed_index(held, start=0, global_batch=8)
        assert index == max(held) > 0
        for stream in streams:
            stream.reorder(stream.plan.order.without([2], from_index=index))
        for mine, stream in zip(blocks, streams, strict=True):
            mine += stream
    dropped = order.without([2], from_index=index)
    got: dict[int, int] = {}
    for mine in blocks:
        assert [block.plan.number for block in mine] == list(range(40))
        for block in mine:
            got.update(zip(block.columns["stream_index"].tolist(), block.columns["sample_id"].tolist(), strict=True))
    q = np.array(sorted(got))
    assert np.array_equal([got[i] for i in q], dropped.samples(q))
    episodes = spec.selection.locate(np.array([got[i] for i in q]))[0]
    assert np.any(episodes[q < index] == 2)
    assert not np.any(episodes[q >= index] == 2)


def test_files_of_a_far_dataset_are_asked_for_before_their_turn(tmp_path, monkeypatch):
    """Against a real S3 server: decoding one block fetches the videos of a later one."""
    from lerobot_ray.data.remote import ObjectStorage
    from tests.s3_server import S3Server

    root = make_dataset(tmp_path / "far", files="many", episodes=[12] * 8)
    with S3Server() as s3:
        s3.put("bucket", {f"ds/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*") if p.is_file()})
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
        metadata = open_metadata("test/far", storage=ObjectStorage("s3://bucket/ds"))
        spec = SampleSpec(metadata, select_episodes(metadata.episodes))
        decode = DecodeBlocks(spec, replace(make_plan(spec), micro_batches_per_block=1))
        now, later = (set(episodes_of(decode.plan.block(number), spec)) for number in (0, BLOCKS_AHEAD))
        wanted = {f"file-{episode:03d}.mp4" for episode in later - now}
        assert wanted
        decode.decode(0)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            fetched = {path.split("?")[0].rsplit("/", 1)[-1] for method, path in s3.log if method == "GET"}
            if wanted <= fetched:
                break
            time.sleep(0.05)
        assert wanted <= fetched


def episodes_of(block, spec: SampleSpec) -> list[int]:
    return spec.selection.locate(block.sample_ids.ravel())[0].tolist()


class Misordered:
    """Ray Data as it has never been seen to be: real blocks, in the order given."""

    def __init__(self, decode: DecodeBlocks, numbers) -> None:
        self._blocks = (unframe_block(decode.decode(number)) for number in numbers)

    def next(self, stopping):
        return next(self._blocks, None)

    def close(self, *, is_stuck):
        pass


@pytest.mark.parametrize(
    ("numbers", "message"),
    [([0, 1, 1], "twice"), ([0, 2, 3, 4, 5, 6, 7, 8], "missing"), ([0, 1], "before block 2")],
    ids=["repeat", "gap", "short"],
)
def test_a_stream_that_repeats_or_skips_is_refused(ray_cluster, spec, monkeypatch, numbers, message):
    plan = make_plan(spec)
    blocks = iter([numbers])
    monkeypatch.setattr(ingest, "Segment", lambda *_: Misordered(DecodeBlocks(spec, plan), next(blocks, [])))
    with pytest.raises(StreamError, match=message), BlockStream(spec, plan, num_blocks=9) as stream:
        list(stream)


def test_other_samples_under_the_right_number_are_refused(ray_cluster, spec, monkeypatch):
    decode = DecodeBlocks(spec, make_plan(spec, start=8))
    monkeypatch.setattr(ingest, "Segment", lambda *_: Misordered(decode, range(3)))
    with pytest.raises(StreamError, match="other samples"), BlockStream(spec, make_plan(spec), num_blocks=3) as stream:
        list(stream)
