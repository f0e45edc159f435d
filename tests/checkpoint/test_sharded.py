"""Checkpoints that several ranks write together: each its part, whole or absent, loaded on any number of ranks."""

import json
import multiprocessing
import os
import random
import shutil
import socket
import time

import pytest
import torch
import torch.multiprocessing as mp
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lerobot_ray.checkpoint.commit import complete_checkpoints, verify, writing_folder
from lerobot_ray.checkpoint.convert import convert
from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.checkpoint.load import load_record
from lerobot_ray.config.parallel import ParallelismConfig
from lerobot_ray.core.errors import CheckpointError, PolicyError
from lerobot_ray.policies.config_file import read_config
from lerobot_ray.policies.registry import policy_class_of
from tests.checkpoint.runs import TOTAL_STEPS, assert_equal, make_run

SHARDED, COPIED = ParallelismConfig(dp_shard=-1), ParallelismConfig()
KINDS = ("model", "ema", "optimizer")


def join(rank, world, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def save(run, writer):
    """Collective. Until it is committed, or could not be."""
    torch.distributed.barrier()
    writer.submit(run.snapshot(in_parts=True))
    try:
        writer.wait()
    finally:
        torch.distributed.barrier()  # the first rank commits when the others have done theirs


def _several_ranks(rank, world, port, parallelism, begin, folder):
    """Trains sharded from a whole checkpoint, saves in parts; what was saved is loaded into copies, which save too."""
    join(rank, world, port)
    here = {"rank": rank, "world_size": world}
    run = make_run(**here, parallelism=parallelism)
    run.load(begin)
    for has_whole in (False, True):
        writer = run.writer_of_parts(folder / "run", has_whole=has_whole)
        run.train(1)
        save(run, writer)
        tensors = run.tensors()
        if rank == 0:
            save_file(tensors, folder / f"{run.step}.safetensors")
    spoil_a_save(run, folder / "run")
    copies = make_run(seed=rank, **here, parallelism=COPIED)
    copies.load(find_checkpoint(folder / "run"))
    save(copies, copies.writer_of_parts(folder / "copied"))
    again = make_run(seed=rank, **here, parallelism=parallelism)
    again.load(find_checkpoint(folder / "copied"))
    tensors = again.tensors()
    if rank == 0:
        save_file(tensors, folder / "again.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def spoil_a_save(run, run_dir):
    """Collective. The last rank cannot write its part: something else has the name."""
    run.train(1)
    writer = run.writer_of_parts(run_dir, mark="spoilt")
    torch.distributed.barrier()  # the first rank's writer sweeps as it begins
    if run.rank == run.world_size - 1:
        folder = writing_folder(run_dir, run.step, total_steps=TOTAL_STEPS, mark="spoilt")
        (folder / f"sharded/model/rank-{run.rank:05d}-of-{run.world_size:05d}.safetensors").mkdir(parents=True)
    if run.rank:
        save(run, writer)
    else:
        with pytest.raises(CheckpointError, match=rf"on rank {run.world_size - 1}, .*The one before, .*5, is intact"):
            save(run, writer)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((2, SHARDED), id="fsdp2"),
        pytest.param((4, ParallelismConfig(dp_replicate=2, dp_shard=2)), id="hybrid2x2", marks=pytest.mark.slow),
    ],
)
def written(request, tmp_path_factory):
    """Steps 4 (parts alone) and 5 (whole weights as well) of a run on several ranks, and copies of step 5."""
    world, parallelism = request.param
    folder = tmp_path_factory.mktemp("parts")
    run = make_run()
    run.train(3)
    mp.spawn(_several_ranks, (world, free_port(), parallelism, run.save(folder / "begin"), folder), nprocs=world)
    return world, folder


def checkpoint(folder, step, run="run"):
    return folder / run / "checkpoints" / f"{step:06d}"


def test_every_rank_writes_its_share_and_nothing_twice(written):
    world, folder = written
    for run in ("run", "copied"):
        saved = checkpoint(folder, 5, run)
        verify(saved)
        amounts = [0] * world
        for kind in KINDS:
            paths = sorted((saved / "sharded" / kind).iterdir())
            assert len(paths) == world
            for rank, path in enumerate(paths):
                with safe_open(path, framework="pt") as file:
                    amounts[rank] += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
        tensors = load_file(folder / "5.safetensors")
        whole = sum(t.numel() for name, t in tensors.items() if name.split("/")[0] in ("weight", "ema", "main"))
        whole -= sum(tensors[name].numel() for name in ("main/lr", "ema/updates", "main/epoch"))
        assert sum(amounts) == whole
        assert max(amounts) < 1.2 * whole / world


def test_the_manifest_has_the_files_of_all_ranks(written):
    world, folder = written
    files = json.loads((checkpoint(folder, 4) / "manifest.json").read_text())["files"]
    names = {f"sharded/{kind}/rank-{rank:05d}-of-{world:05d}.safetensors" for kind in KINDS for rank in range(world)}
    assert {name for name in files if name.startswith("sharded/")} == names
    assert load_record(checkpoint(folder, 4)).world_size == world


@pytest.mark.parametrize("step", [4, 5])
def test_one_process_loads_what_several_wrote(written, step):
    _, folder = written
    alone = make_run(seed=9)
    alone.load(checkpoint(folder, step))
    assert_equal(alone.tensors(), load_file(folder / f"{step}.safetensors"))


def test_copies_load_shards_and_shards_load_copies(written):
    _, folder = written
    assert_equal(load_file(folder / "again.safetensors"), load_file(folder / "5.safetensors"))


def test_whole_weights_are_there_where_asked_for(written):
    _, folder = written
    tensors = load_file(folder / "5.safetensors")
    for name, kind in (("pretrained_model", "weight"), ("pretrained_model_ema", "ema")):
        saved = checkpoint(folder, 5) / name
        policy = policy_class_of(type(read_config(saved))).from_pretrained(saved, strict=True)
        state = policy.state_dict()
        expected = {key.removeprefix(f"{kind}/"): t for key, t in tensors.items() if key.startswith(f"{kind}/")}
        expected.pop("updates", None)
        assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())
        bare = checkpoint(folder, 4) / name
        assert not list(bare.glob("model*"))
        with pytest.raises(PolicyError, match=r"lerobot_ray\.convert"):
            policy_class_of(type(read_config(bare))).from_pretrained(bare)


def test_a_part_that_cannot_be_written_fails_the_save_and_leaves_nothing(written):
    _, folder = written
    assert [path.name for path in complete_checkpoints(folder / "run")] == ["000004", "000005"]
    assert not list((folder / "run" / "checkpoints").glob(".writing-*"))


def test_converted_it_is_what_one_process_would_have_saved(written, tmp_path):
    _, folder = written
    alone = make_run(seed=9)
    alone.load(checkpoint(folder, 4))
    expected = alone.save(tmp_path / "expected")
    found = convert(checkpoint(folder, 4), tmp_path / "converted")
    verify(found)
    assert not (found / "sharded").exists()
    for path in expected.rglob("*.safetensors"):
        if path.name != "rng_state.safetensors":
            assert (found / path.relative_to(expected)).read_bytes() == path.read_bytes(), path.name
    with pytest.raises(CheckpointError, match="exists already"):
        convert(checkpoint(folder, 4), tmp_path / "converted")
    with pytest.raises(CheckpointError, match="whole files already"):
        convert(found, tmp_path / "twice")


def test_a_lost_file_of_a_rank_makes_the_checkpoint_incomplete(written, tmp_path):
    _, folder = written
    shutil.copytree(folder / "run" / "checkpoints", tmp_path / "checkpoints", symlinks=True)
    next((tmp_path / "checkpoints/000005/sharded/optimizer").iterdir()).unlink()
    assert find_checkpoint(tmp_path).name == "000004"


def test_alone_it_works_as_well(tmp_path):
    run = make_run()
    run.train(1)
    writer = run.writer_of_parts(tmp_path)
    writer.submit(run.snapshot(in_parts=True))
    before = run.tensors()
    run.train(1)
    writer.wait()
    resumed = make_run(seed=1)
    resumed.load(find_checkpoint(tmp_path))
    assert_equal(resumed.tensors(), before)


def _save_forever(rank, world, port, run_dir, submitted):
    join(rank, world, port)
    run = make_run(rank=rank, world_size=world, parallelism=SHARDED, with_ema=False)
    if complete_checkpoints(run_dir):
        run.load(find_checkpoint(run_dir))
    writer = run.writer_of_parts(run_dir, mark=str(port))
    while True:
        run.train(1)
        writer.wait()
        torch.distributed.barrier()
        writer.submit(run.snapshot(in_parts=True))
        submitted.release()


@pytest.mark.slow
def test_a_rank_killed_inside_a_save_leaves_the_one_before(tmp_path):
    """kill -9 of one rank, then of the other, at random moments; what is there is whole and goes on."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.checkpoint.runs"])
    moments, newest, cut_short = random.Random(1), 0, 0
    for attempt in range(6):
        submitted, port = processes.Semaphore(0), free_port()
        ranks = [
            processes.Process(target=_save_forever, args=(rank, 2, port, tmp_path, submitted), daemon=True)
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        for _ in range(2 * moments.choice([2, 2, 3])):  # by both ranks; the one before the last is complete then
            assert submitted.acquire(timeout=120)
        time.sleep(moments.uniform(0.0, 0.03))
        first = attempt % 2
        for process in (ranks[first], ranks[1 - first]):
            process.kill()
            process.join()
        cut_short += bool(list((tmp_path / "checkpoints").glob(".writing-*")))
        for found in complete_checkpoints(tmp_path):
            verify(found)
            assert load_record(found).step == int(found.name)
        now = max(int(path.name) for path in complete_checkpoints(tmp_path))
        assert now > newest
        newest = now
    assert cut_short, "no kill fell inside a save"
    resumed, unbroken = make_run(seed=1, with_ema=False), make_run(with_ema=False)
    resumed.load(find_checkpoint(tmp_path))
    unbroken.train(newest)
    expected = unbroken.tensors()
    for key, value in resumed.tensors().items():
        terms = {"rtol": 1e-3, "atol": 1e-5} if "exp_avg" in key else {"rtol": 0, "atol": 3e-3}
        torch.testing.assert_close(expected[key], value, msg=lambda text, key=key: f"{key}: {text}", **terms)
