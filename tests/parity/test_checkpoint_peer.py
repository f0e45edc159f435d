"""A run changes hands: begun here and resumed by lerobot-train, then taken back, with every number in its place."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from lerobot_ray.checkpoint.commit import new_checkpoint
from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.checkpoint.load import is_lerobot_checkpoint, load_record, load_training_state
from lerobot_ray.checkpoint.save import write_snapshot
from lerobot_ray.checkpoint.snapshot import take_snapshot
from lerobot_ray.checkpoint.state import RunRecord
from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.files import load_train_config
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.types import ACTION
from lerobot_ray.engine.ema import Ema
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.engine.schedule import build_schedules
from lerobot_ray.processing import processors_for_run
from tests.parity.peer import run_lerobot_train, run_peer
from tests.parity.test_full_circle import OPTIONS, fresh, raw_batch, stats, step

pytestmark = [pytest.mark.lerobot, pytest.mark.slow]

BATCH, NUM_SAMPLES = 4, 24


def learner_of(config, policy_config, policy):
    optimizers = build_optimizers(config.optimizer, policy.get_optim_params())
    return optimizers, build_schedules(config.scheduler, optimizers, config.steps)


@pytest.fixture(scope="module", params=OPTIONS)
def begun_here(request, tmp_path_factory):
    """(run folder, its checkpoint) after two steps with this package, on a dataset that LeRobot wrote."""
    root, kind = tmp_path_factory.mktemp(request.param), request.param
    run_peer("make_dataset.py", root / "dataset")
    policy_config, policy = fresh(kind)
    config = TrainConfig(
        dataset=DatasetConfig(repo_id="local/tiny", root=str(root / "dataset")),
        policy=policy_config,
        output_dir=root / "run",
        num_workers=0,
        batch_size=BATCH,
        steps=2,
        save_freq=2,
        env_eval_freq=0,
        log_freq=1,
        optimizer=policy_config.get_optimizer_preset(),
        scheduler=policy_config.get_scheduler_preset(),
        ema=EmaConfig(enable=True),
        audit=True,
    )
    optimizers, schedules = learner_of(config, policy_config, policy)
    pre, post = processors_for_run(policy_config, stats())
    ema = Ema(policy, config.ema)
    for number in range(2):
        step(policy, optimizers, schedules, pre(raw_batch(kind, size=BATCH, seed=number)), seed=number)
        ema.update()
    record = RunRecord(step=2, samples_seen=2 * BATCH, seed=1000, global_batch=BATCH, world_size=1)
    snapshot = take_snapshot(policy=policy, optimizers=optimizers, schedules=schedules, ema=ema, record=record, rank=0)
    write = functools.partial(
        write_snapshot, config=config, policy_config=policy_config, preprocessor=pre, postprocessor=post
    )
    with new_checkpoint(root / "run", 2, total_steps=2) as folder:
        write(snapshot, folder)
    return kind, root / "run"


@pytest.fixture(scope="module")
def resumed_there(begun_here):
    """(type, the checkpoint from here, the one that lerobot-train wrote two steps later)."""
    kind, run_dir = begun_here
    ours = find_checkpoint(run_dir)
    run_lerobot_train(config_path=ours / "pretrained_model" / "train_config.json", resume="true", steps=4)
    return kind, ours, find_checkpoint(run_dir)


def test_lerobot_train_resumes_it_where_it_stood(resumed_there):
    _, ours, theirs = resumed_there
    assert (ours.name, theirs.name) == ("000002", "000004")
    assert is_lerobot_checkpoint(theirs)
    before, after = (load_file(path / "training_state" / "optimizer_state.safetensors") for path in (ours, theirs))
    assert set(before) == set(after)
    # counted on from two: its optimizer took over our moments, it did not begin its own
    assert {float(value) for key, value in before.items() if key.endswith("/step")} == {2.0}
    assert {float(value) for key, value in after.items() if key.endswith("/step")} == {4.0}
    rates = json.loads((theirs / "training_state" / "optimizer_param_groups.json").read_text())
    largest = max(group["lr"] for group in rates)
    was, now = (load_file(path / "pretrained_model" / "model.safetensors") for path in (ours, theirs))
    moved = {key: float((now[key].double() - was[key].double()).abs().max()) for key in was}
    assert 0 < max(moved.values()) < 40 * largest, "two steps of Adam from where it stood, not from elsewhere"
    schedules = [path / "training_state" / "scheduler_state.json" for path in (ours, theirs)]
    if schedules[0].exists():
        assert [json.loads(path.read_text())["last_epoch"] for path in schedules] == [2, 4]
    step = json.loads((theirs / "training_state" / "training_step.json").read_text())
    assert step == {"step": 4, "num_processes": 1, "batch_size": BATCH}


def test_what_lerobot_train_wrote_loads_here_number_by_number(resumed_there):
    kind, _, checkpoint = resumed_there
    config = load_train_config(checkpoint / "pretrained_model")  # LeRobot has changed some of its types
    _, policy = fresh(kind)
    optimizers, schedules = learner_of(config, config.policy, policy)
    load_training_state(checkpoint, policy=policy, optimizers=optimizers, schedules=schedules)

    weights = load_file(checkpoint / "pretrained_model" / "model.safetensors")
    own = policy.state_dict()
    assert set(own) == set(weights)
    assert all(torch.equal(own[name], value) for name, value in weights.items())
    state = optimizers["main"].state_dict()["state"]
    saved = load_file(checkpoint / "training_state" / "optimizer_state.safetensors")
    assert {f"state/{number}/{name}" for number in state for name in state[number]} == set(saved)
    for key, value in saved.items():
        _, number, name = key.split("/")
        assert torch.equal(state[int(number)][name], value), key
    groups = json.loads((checkpoint / "training_state" / "optimizer_param_groups.json").read_text())
    assert [group["lr"] for group in optimizers["main"].param_groups] == [group["lr"] for group in groups]
    assert all(schedule.last_epoch == 4 for schedule in schedules.values())

    record = load_record(checkpoint, num_samples=NUM_SAMPLES)
    assert (record.step, record.samples_seen, record.global_batch, record.seed) == (4, 4 * BATCH, BATCH, 1000)
    assert record.order["name"] == "lerobot"
    pre, _ = processors_for_run(config.policy, None, checkpoint / "pretrained_model", resume=True)
    loss = step(policy, optimizers, schedules, pre(raw_batch(kind, size=BATCH)), seed=0)
    assert torch.isfinite(loss)
    assert ACTION in config.policy.output_features
