"""Resuming: bit for bit what was saved, on any number of workers; and a clear word when something does not fit."""

import json
import os
import shutil
import socket

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.checkpoint.load import is_lerobot_checkpoint, load_record
from lerobot_ray.config.optim import AdamConfig, AdamWConfig, SGDConfig
from lerobot_ray.config.parallel import ParallelismConfig
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.data.order import build_order, check_order
from tests.checkpoint.runs import NUM_SAMPLES, assert_equal, make_run

SHARDED = ParallelismConfig(dp_shard=-1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = make_run()
    run.train(3)
    return run, run.save(tmp_path_factory.mktemp("run"))


@pytest.fixture
def copied(saved, tmp_path):
    """A run folder whose checkpoint may be spoilt."""
    shutil.copytree(saved[1].parent, tmp_path / "checkpoints", symlinks=True)
    return tmp_path / "checkpoints" / "000003"


def test_a_resumed_run_goes_on_bit_for_bit(saved):
    run, checkpoint = saved
    resumed = make_run(seed=1)
    resumed.load(checkpoint)
    assert_equal(resumed.tensors(), run.tensors())
    unbroken = make_run()
    unbroken.train(6)
    resumed.train(3)
    assert_equal(resumed.tensors(), unbroken.tensors())


def test_a_policy_with_a_camera_and_two_parameter_groups_comes_back(tmp_path):
    run = make_run(camera=True)
    run.train(1)
    assert [len(group["params"]) > 0 for group in run.learner.optimizers["main"].param_groups] == [True, True]
    resumed = make_run(seed=1, camera=True)
    resumed.load(run.save(tmp_path))
    assert_equal(resumed.tensors(), run.tensors())


def test_interrupted_twice_is_as_good_as_once(tmp_path):
    unbroken = make_run()
    unbroken.train(5)
    part = make_run()
    for count in (1, 2):
        part.train(count)
        checkpoint = part.save(tmp_path)
        part = make_run(seed=9)
        part.load(checkpoint)
    part.train(2)
    assert_equal(part.tensors(), unbroken.tensors())


def _resume_and_train(rank, world, port, parallelism, checkpoint, tmp_path):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    run = make_run(seed=rank, rank=rank, world_size=world, parallelism=parallelism)
    run.load(checkpoint)
    for count in (0, 2):
        run.train(count)
        run.save(tmp_path / "run")
        tensors = run.tensors()
        if rank == 0:
            save_file(tensors, tmp_path / f"{run.step}.safetensors")
    if parallelism.dp_shard != 1:
        parameters = [*run.policy.parameters(), *(e["exp_avg"] for e in run.learner.optimizers["main"].state.values())]
        assert sum(p.to_local().numel() for p in parameters) < 0.75 * sum(p.numel() for p in parameters)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("world", "parallelism"),
    [
        pytest.param(2, SHARDED, id="fsdp2"),
        pytest.param(4, ParallelismConfig(dp_replicate=2, dp_shard=2), id="hybrid2x2", marks=pytest.mark.slow),
    ],
)
def test_from_one_process_to_several_and_back(tmp_path, saved, world, parallelism):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_resume_and_train, (world, port, parallelism, saved[1], tmp_path), nprocs=world)
    # several processes loaded what one had saved, and save the same bytes
    assert_equal(load_file(tmp_path / "3.safetensors"), saved[0].tensors())
    copy = find_checkpoint(tmp_path / "run" / "checkpoints" / "000003")
    for name in ("pretrained_model", "pretrained_model_ema", "training_state"):
        for path in (saved[1] / name).glob("*.safetensors"):
            if path.name != "rng_state.safetensors":
                assert (copy / name / path.name).read_bytes() == path.read_bytes(), path.name
    assert load_record(copy).world_size == world
    # one process loads what several have saved, after they trained
    alone = make_run(seed=5)
    alone.load(find_checkpoint(tmp_path / "run"))
    many = load_file(tmp_path / "5.safetensors")
    assert_equal(alone.tensors(), many)
    # and they trained as one process would have
    alone.load(saved[1])
    alone.train(2)
    for key, value in alone.tensors().items():
        terms = {"rtol": 1e-3, "atol": 1e-5} if "exp_avg" in key else {"rtol": 0, "atol": 3e-4}
        torch.testing.assert_close(many[key], value, msg=lambda text, key=key: f"{key}: {text}", **terms)


def test_the_record_comes_back(saved):
    run, checkpoint = saved
    record = load_record(checkpoint)
    assert record == run.record()
    check_order(record.order, build_order("frames", num_samples=NUM_SAMPLES, seed=7, episode_lengths=None))
    assert not is_lerobot_checkpoint(checkpoint)


def test_a_lerobot_record_is_converted(copied):
    (copied / "training_state" / "lerobot_ray_state.json").unlink()
    (copied / "training_state" / "training_step.json").write_text('{"step": 9, "num_processes": 2, "batch_size": 4}')
    assert is_lerobot_checkpoint(copied)
    with pytest.raises(CheckpointError, match="num_samples"):
        load_record(copied)
    record = load_record(copied, num_samples=30)
    # an epoch of 30 samples takes lerobot-train four steps of 2 x 4, the last one filled up
    assert (record.step, record.samples_seen, record.global_batch, record.world_size) == (9, 2 * 30 + 8, 8, 2)
    assert record.order == {"name": "lerobot", "version": 1, "seed": 1000, "num_samples": 30}


def test_an_average_begun_at_resume_starts_from_the_loaded_weights(tmp_path, caplog):
    run = make_run(with_ema=False)
    run.train(1)
    checkpoint = run.save(tmp_path)
    resumed = make_run(seed=1)
    resumed.load(checkpoint)
    assert "begins with its trained ones" in caplog.text
    assert resumed.learner.ema.num_updates == 0
    weights = dict(run.policy.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in resumed.learner.ema.shadow.items())


def test_the_loss_scale_comes_back(tmp_path):
    run = make_run()
    run.learner.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    run.train(1)
    checkpoint = run.save(tmp_path)
    resumed = make_run(seed=1)
    resumed.learner.scaler = torch.amp.GradScaler("cpu")
    resumed.load(checkpoint)
    assert resumed.learner.scaler.state_dict() == run.learner.scaler.state_dict()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dim_model": 16}, "another shape: .*in the file"),
        ({"use_vae": False}, "unexpected: "),
        ({"n_encoder_layers": 3}, "missing: "),
        ({"with_schedule": False}, "this run has none"),
        ({"optimizer": AdamConfig(lr=1e-3)}, "another kind of optimizer.*decoupled_weight_decay"),
        ({"optimizer": SGDConfig(lr=1e-3)}, "another kind of optimizer.*betas, momentum"),
    ],
)
def test_what_does_not_fit_is_named(saved, options, says):
    with pytest.raises(CheckpointError, match=says):
        make_run(**options).load(saved[1])


def test_a_schedule_that_was_not_saved_is_named(copied):
    (copied / "training_state" / "scheduler_state.json").unlink()
    with pytest.raises(CheckpointError, match="holds no learning-rate schedule"):
        make_run().load(copied)


def test_other_optimizer_settings_of_the_same_kind_give_way_to_the_saved_ones(saved):
    resumed = make_run(optimizer=AdamWConfig(lr=3e-3, weight_decay=0.5))
    resumed.load(saved[1])
    assert_equal(resumed.tensors(), saved[0].tensors())


def test_other_trainable_parameters_are_named(saved):
    run = make_run()
    run.learner.optimizers["main"].param_groups[0]["params"].pop()
    with pytest.raises(CheckpointError, match="groups of"):
        run.load(saved[1])


@pytest.mark.parametrize(
    "name", ["pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"], ids=["model", "adam"]
)
def test_a_file_cut_short_is_named(copied, name):
    path = copied / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=path.name):
        make_run().load(copied)


def test_what_is_loaded_does_not_hold_on_to_the_files(saved, copied):
    resumed = make_run(seed=1)
    resumed.load(copied)
    for path in copied.rglob("*.safetensors"):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    assert_equal(resumed.tensors(), saved[0].tensors())
    for path in copied.rglob("*.safetensors"):  # whoever still looks into the files would be killed by this
        os.truncate(path, 0)
    assert_equal(resumed.tensors(), saved[0].tensors())


def test_a_record_of_a_newer_version_is_refused(copied):
    path = copied / "training_state" / "lerobot_ray_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(CheckpointError, match="newer version"):
        load_record(copied)
