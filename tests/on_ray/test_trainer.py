"""What the driver refuses, before any worker starts, and where it can before Ray does."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.on_ray.cluster import Workers, cpus_to_claim, workers_on_cluster
from lerobot_ray.on_ray.run_folder import claimed
from tests.make_dataset import make_dataset
from tests.on_ray.runs import checkpoint, command, command_of_diffusion, refusals, save_untrained

REFUSED = {
    "folder that is there": ([], "exists already"),
    "no such dataset": (["--dataset.root=/nonexistent/dataset"], "/nonexistent/dataset"),
    "global batch above N": (["--batch_size=100"], "more than the 72 samples"),
    "uneven global batch": (["--global_batch_size=9", "--ray.num_workers=2"], "Try 10 or 8"),
    "no GPU": (["--ray.use_gpu=true"], "has no GPU"),
    "nothing to resume": (["--resume=true", "--config_path={folder}"], "no train_config.json"),
    "no unit to shard": (["--parallelism.dp_shard=-1", "--accelerator.fsdp.wrap_modules=[NoBlock]"], "wrap_modules"),
    "shards that do not divide": (["--parallelism.dp_shard=2"], "do not fit 1 workers"),
    "unknown episodes": (["--dataset.episodes=[7]"], "has 4 episodes"),
    "a feature the dataset lacks": (
        ['--policy.input_features={"observation.images.top": {"type": "VISUAL", "shape": [3, 64, 96]}}'],
        "observation.images.top",
    ),
}


CONTINUED = {  # a command line that would go on from a checkpoint, and why it may not
    "of another policy": "is of a policy of type act, this run trains diffusion",
    "of other features": "features changed since the checkpoint was written",
    "of other episodes": "num_samples=72, this run has 40",
    "of another seed": "seed=1000, this run has 7",
    "cut short": "is not a complete checkpoint: pretrained_model/model.safetensors missing or cut short",
    "of a run that is still going": "another run is writing to",
}


@pytest.fixture(scope="module")
def answers(toy_root, tmp_path_factory) -> dict[str, tuple[str, bool]]:
    """Case -> (message, whether Ray was started). All in one process without Ray: importing torch takes a while."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "used").mkdir()
    (folder / "used" / "something").write_text("kept")
    cases = {}
    for name, (flags, _) in REFUSED.items():
        output_dir = folder / ("used" if name == "folder that is there" else "new")
        cases[name] = command(toy_root, output_dir, *(flag.replace("{folder}", str(folder)) for flag in flags))
    run, going, cut = folder / "run", folder / "going", folder / "cut"
    save_untrained(command(toy_root, run), step=8)
    shutil.copytree(run, going, symlinks=True)
    shutil.copytree(run, cut, symlinks=True)
    weights = checkpoint(cut, 8) / "pretrained_model" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    other = make_dataset(folder / "other", cameras={"observation.images.top": (64, 96)})
    cases |= {
        "of another policy": command_of_diffusion(toy_root, run, "--resume=auto"),
        "of other features": command(other, run, "--resume=auto"),
        "of other episodes": command(toy_root, run, "--resume=auto", "--dataset.episodes=[0,1]"),
        "of another seed": command(toy_root, run, "--resume=auto", "--seed=7"),
        "cut short": ["--resume=true", f"--config_path={cut}"],
        "of a run that is still going": command(toy_root, going, "--resume=auto"),
    }
    with claimed(going):
        results = refusals(cases)
    assert not (folder / "new").exists(), "a run that was refused leaves no folder"
    return results


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_ray_starts(answers, name):
    said, has_ray = answers[name]
    assert REFUSED[name][1] in said
    assert not has_ray


@pytest.mark.parametrize("name", CONTINUED)
def test_a_checkpoint_that_cannot_be_continued_is_refused_before_ray_starts(answers, name):
    said, has_ray = answers[name]
    assert CONTINUED[name] in said
    assert not has_ray


def test_a_missing_file_of_the_dataset_is_named(toy_root, tmp_path):
    root = shutil.copytree(toy_root, tmp_path / "toy")
    video = next((root / "videos").rglob("*.mp4"))
    video.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "lerobot_ray.train", *command(root, tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert video.name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_in_use_is_refused(tmp_path):
    with (
        claimed(tmp_path / "run"),
        pytest.raises(ConfigError, match="another run is writing"),
        claimed(tmp_path / "run"),
    ):
        pass
    with claimed(tmp_path / "run"):
        pass


@pytest.mark.ray
def test_more_workers_than_the_cluster_holds(ray_cluster):
    with pytest.raises(ConfigError, match=r"50 workers .* holds 4 CPU on 1 node, room for 4"):
        workers_on_cluster(RayConfig(num_workers=50), None)
    with pytest.raises(ConfigError, match="has no GPU"):
        workers_on_cluster(RayConfig(use_gpu=True), None)
    assert workers_on_cluster(RayConfig(num_workers=4), None).count == 4


def test_a_ray_started_here_has_room_to_decode():
    workers = Workers(count=64, fewest=64, use_gpu=False, resources={"CPU": 1.0})
    assert cpus_to_claim(workers) >= 128


def test_checkpoints_of_an_earlier_run_are_not_mistaken_for_ones_own(tmp_path):
    from lerobot_ray.checkpoint.commit import new_checkpoint
    from lerobot_ray.on_ray.run_folder import latest_checkpoint, marks_of_checkpoints

    def save(step: int, text: str) -> None:
        with new_checkpoint(tmp_path, step, total_steps=100) as folder:
            (folder / "file").write_text(text)

    for step in (10, 20):
        save(step, "before")
    before = marks_of_checkpoints(tmp_path)
    assert latest_checkpoint(tmp_path, not_ours=before) is None
    save(15, "now")
    assert latest_checkpoint(tmp_path, not_ours=before).name == "000015"
    save(20, "now")  # replaces the other run's
    assert latest_checkpoint(tmp_path, not_ours=before).name == "000020"


def test_every_camera_of_the_policy_is_read(tmp_path):
    from lerobot_ray.config.parse import parse_train_config
    from lerobot_ray.on_ray.plan_run import plan_run
    from lerobot_ray.on_ray.run_samples import open_dataset

    cameras = {"observation.images.a": (64, 96), "observation.images.b": (64, 96)}
    root = make_dataset(tmp_path / "two", episodes=(12,), cameras=cameras)
    config = parse_train_config(command(root, tmp_path / "run"))
    setup = plan_run(config, open_dataset(config), world_size=1, device="cpu")
    assert set(cameras) <= set(setup.spec.features)
    only_a = '{"observation.images.a": {"type": "VISUAL", "shape": [3, 64, 96]}, "observation.state": '
    config = parse_train_config(
        command(root, tmp_path / "run", f'--policy.input_features={only_a}{{"type": "STATE", "shape": [4]}}}}')
    )
    setup = plan_run(config, open_dataset(config), world_size=1, device="cpu")
    assert "observation.images.b" not in setup.spec.features


def test_memory_is_counted_without_building_anything(tmp_path, toy_root):
    from lerobot_ray.config.parse import parse_train_config
    from lerobot_ray.on_ray.memory import memory_line, num_parameters
    from lerobot_ray.on_ray.plan_run import plan_run
    from lerobot_ray.on_ray.run_samples import open_dataset
    from lerobot_ray.policies.registry import build_policy

    def setup_of(*flags: str, world_size: int = 2):
        config = parse_train_config(command(toy_root, tmp_path / "run", *flags))
        return plan_run(config, open_dataset(config), world_size=world_size, device="cpu")

    setup = setup_of()
    policy = build_policy(setup.config.policy)
    count = sum(parameter.numel() for parameter in policy.parameters())
    assert num_parameters(setup) == count
    assert f"{count * 16 / 1e9:.2g} GB per worker" in memory_line(setup, 2)
    sharded = memory_line(setup_of("--parallelism.dp_shard=2", "--ema.enable=true"), 2)
    assert f"{count * 20 / 2 / 1e9:.2g} GB per worker" in sharded
    policy.save_pretrained(tmp_path / "policy")
    fine_tuned = dataclasses.replace(setup.config, policy=copy.deepcopy(setup.config.policy))
    fine_tuned.policy.pretrained_path = str(tmp_path / "policy")
    assert num_parameters(dataclasses.replace(setup, config=fine_tuned)) >= count  # buffers are in the file, too


def test_a_resumed_run_keeps_the_order_of_its_checkpoint(tmp_path, toy_root):
    from lerobot_ray.checkpoint.state import RunRecord, save_record
    from lerobot_ray.config.parse import parse_train_config
    from lerobot_ray.core.layout import TRAINING_STATE_DIR
    from lerobot_ray.on_ray.trainer import with_order_of_checkpoint

    order = {"name": "lerobot", "version": 1, "seed": 0, "num_samples": 72}
    record = RunRecord(step=1, samples_seen=8, seed=0, global_batch=8, world_size=1, order=order)
    save_record(record, tmp_path / TRAINING_STATE_DIR)
    config = parse_train_config(command(toy_root, tmp_path / "run"))
    assert with_order_of_checkpoint(config, tmp_path).dataset.order == "lerobot"
    assert with_order_of_checkpoint(config, None).dataset.order is None
    asked = parse_train_config(command(toy_root, tmp_path / "run", "--dataset.order=frames"))
    assert with_order_of_checkpoint(asked, tmp_path).dataset.order == "frames"


def test_a_relative_output_folder_lies_where_all_nodes_see_it(tmp_path, toy_root):
    from lerobot_ray.config.parse import parse_train_config
    from lerobot_ray.on_ray.trainer import with_absolute_paths

    shared = f"--ray.storage_path={tmp_path}"
    folders = {"runs/a": tmp_path / "runs" / "a", "/elsewhere/a": Path("/elsewhere/a")}
    for given, wanted in folders.items():
        config = parse_train_config(command(toy_root, Path(given), shared))
        assert with_absolute_paths(config).output_dir == wanted
    assert with_absolute_paths(parse_train_config(command(toy_root, Path("a")))).output_dir == Path.cwd() / "a"
    stored = parse_train_config(command(toy_root, Path("a"), "--ray.storage_path=s3://bucket/runs"))
    assert with_absolute_paths(stored).output_dir == Path.cwd() / "a", "a store is no folder to train in"
