"""Runs through Ray on 1, 2 and 4 workers, copied and sharded: what one process computes, to rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lerobot_ray.checkpoint.commit import verify
from lerobot_ray.checkpoint.save import SCALER_NAME
from tests.data.progress import write_progress
from tests.make_dataset import make_dataset
from tests.on_ray.runs import checkpoint, command, losses, run_in_one_start, samples

pytestmark = pytest.mark.ray

STEPS, HALF = 4, 2
USUAL = [
    f"--steps={STEPS}",
    f"--save_freq={HALF}",
    "--num_workers=0",
    "--global_batch_size=8",
    "--optimizer.lr=1e-3",
    "--policy.dropout=0",
]
SHARDED = "--parallelism.dp_shard=-1"
EMA = "--ema.enable=true"
COMPILED = ["--accelerator.compile.enabled=true", "--accelerator.compile.backend=aot_eager"]
DIFFUSION = [
    "--policy.type=diffusion",
    "--policy.device=cpu",
    "--policy.down_dims=[16,32]",
    "--policy.horizon=8",
    "--policy.n_action_steps=4",
    "--policy.diffusion_step_embed_dim=16",
    "--policy.n_groups=4",
    "--policy.use_group_norm=true",  # batch norm averages over a forward pass, so it sees how a batch is split
    "--policy.pretrained_backbone_weights=null",
]

ONE = {
    "base": [EMA],
    "diffusion": DIFFUSION,
    "transforms": ["--dataset.image_transforms.enable=true"],
    "weighted": ["--sample_weighting.kappa=0.3"],
    "shards": ["--dataset.order=shards", "--dataset.shard_frames=8", "--dataset.window_shards=2"],
}
TWO = {  # name -> (flags, the run of one worker it must equal)
    "copies": ([EMA], "base"),
    "accumulating": (["--batch_size=2"], "base"),
    "sharded": ([SHARDED, EMA], "base"),
    "sharded-recomputing": ([SHARDED, "--accelerator.activation_checkpointing.mode=full"], "base"),
    "sharded-compiled": ([SHARDED, *COMPILED], "base"),
    "diffusion-sharded": ([*DIFFUSION, SHARDED], "diffusion"),
    "transformed": (ONE["transforms"], "transforms"),
    "weighted": (ONE["weighted"], "weighted"),
    "weighted-accumulating": ([*ONE["weighted"], "--batch_size=2", SHARDED], "weighted"),
    "shards-cached": ([*ONE["shards"], "--dataset.cache=memory", "--dataset.cache_gb=0.05"], "shards"),
    "skipping": (["--on_nonfinite=skip", "--dataset.on_bad_episode=skip"], "base"),
}
FP16_STEPS = 12  # fp16 takes no step until its loss scale is low enough
HALF_PRECISION = {
    "bf16-sharded": ["--accelerator.mixed_precision=bf16", SHARDED],
    "fp16": ["--accelerator.mixed_precision=fp16", f"--steps={FP16_STEPS}"],
    "fp16-sharded": ["--accelerator.mixed_precision=fp16", f"--steps={FP16_STEPS}", SHARDED],
}
FOUR = {
    "copies": [],
    "sharded": [SHARDED],
    "copies of shards": ["--parallelism.dp_shard=2", "--parallelism.dp_replicate=2"],
}


def case(root: Path, output_dir: Path, flags: list[str], *, batch_size: int) -> list[str]:
    """A command line; what `flags` say goes before what is usual here, and that before what is usual everywhere."""
    own = {flag.split("=")[0] for flag in flags}
    mine = [flag for flag in [*USUAL, f"--batch_size={batch_size}"] if flag.split("=")[0] not in own] + flags
    arguments = command(root, output_dir, *mine)
    if "--policy.type=diffusion" in flags:  # ACT's flags are not its own
        arguments = [flag for flag in arguments if flag in flags or not flag.startswith("--policy.")]
    return arguments


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset of small frames, with a file of how far along its task each one is."""
    root = make_dataset(tmp_path_factory.mktemp("small") / "ds", cameras={"observation.images.front": (32, 48)})
    write_progress(root)
    return root


def test_copies_and_shards_train_alike(ray_cluster, root, tmp_path):
    flags = {"copies": [], "shards": [SHARDED]}
    cases = {name: case(root, tmp_path / name, own, batch_size=4) for name, own in flags.items()}
    run_in_one_start(cases, num_workers=2)
    assert_equal_to_rounding(tmp_path / "shards", tmp_path / "copies")


@pytest.fixture(scope="module")
def one(ray_cluster, root, tmp_path_factory) -> Path:
    """The runs of one worker."""
    folder = tmp_path_factory.mktemp("one")
    cases = {name: case(root, folder / name, flags, batch_size=8) for name, flags in ONE.items()}
    run_in_one_start(cases, num_workers=1)
    return folder


@pytest.fixture(scope="module")
def two(one, root, tmp_path_factory) -> Path:
    """The runs of two workers."""
    folder = tmp_path_factory.mktemp("two")
    flags_of = {name: flags for name, (flags, _) in TWO.items()} | HALF_PRECISION
    cases = {name: case(root, folder / name, flags, batch_size=4) for name, flags in flags_of.items()}
    half = [f"--steps={HALF}"]
    changing = (
        ("to shards", [], [SHARDED]),
        ("to copies", [SHARDED], []),
        ("in parts", [SHARDED, "--checkpoint_format=dcp", "--save_freq=1"], ["--checkpoint_format=safetensors_dcp"]),
    )
    for name, first, second in changing:
        for part, flags in ((1, first + half), (2, second)):
            cases[f"{name} {part}"] = case(root, folder / name, [EMA, *flags], batch_size=4)
    run_in_one_start(cases, num_workers=2)
    return folder


def assert_equal_to_rounding(run: Path, reference: Path) -> None:
    """Losses alike, the same samples, and weights that moved the same way."""
    assert list(losses(run)) == list(losses(reference)) == list(range(1, STEPS + 1))
    assert np.allclose(list(losses(run).values()), list(losses(reference).values()), rtol=1e-4)
    assert np.array_equal(samples(run), samples(reference))
    assert distance(run, reference, "pretrained_model") < 0.02


def distance(run: Path, reference: Path, folder: str) -> float:
    """How far the weights lie apart, as a share of how far training moved them in its second half."""
    mine, theirs, before = (
        load_file(checkpoint(path, step) / folder / "model.safetensors")
        for path, step in ((run, STEPS), (reference, STEPS), (reference, HALF))
    )
    assert mine.keys() == theirs.keys()
    apart = sum(float(np.square(mine[name] - theirs[name], dtype=np.float64).sum()) for name in mine)
    moved = sum(float(np.square(before[name] - theirs[name], dtype=np.float64).sum()) for name in mine)
    return (apart / moved) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO)
def test_two_workers_compute_what_one_computes(one, two, name):
    assert_equal_to_rounding(two / name, one / TWO[name][1])


@pytest.mark.slow
def test_the_average_of_shards_is_the_average(one, two):
    for name in ("copies", "sharded", "to shards", "to copies"):
        assert distance(two / name, one / "base", "pretrained_model_ema") < 0.02


@pytest.mark.slow
def test_bf16_is_near(one, two):
    near, exact = (np.array([*losses(path).values()]) for path in (two / "bf16-sharded", one / "base"))
    assert not np.array_equal(near, exact)
    assert np.allclose(near, exact, rtol=0.05)


@pytest.mark.slow
def test_fp16_finds_its_loss_scale_and_trains_copied_and_sharded_alike(two):
    copied, sharded = (losses(two / name) for name in ("fp16", "fp16-sharded"))
    assert list(copied) == list(sharded) == list(range(1, FP16_STEPS + 1))
    assert np.allclose([*copied.values()], [*sharded.values()], rtol=0.05)
    assert min([*copied.values()][-3:]) < 0.8 * copied[1]
    for name in ("fp16", "fp16-sharded"):
        state = json.loads((checkpoint(two / name, FP16_STEPS) / "training_state" / SCALER_NAME).read_text())
        assert 1 <= state["scale"] < 2**16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["to shards", "to copies", "in parts"])
def test_a_checkpoint_goes_on_copied_or_sharded(one, two, name):
    assert_equal_to_rounding(two / name, one / "base")


@pytest.mark.slow
def test_parts_are_of_both_workers_and_weights_are_whole_where_they_are_read(two):
    run = two / "in parts"
    for step, is_whole in ((1, False), (HALF, True), (STEPS, True)):
        assert len(list((checkpoint(run, step) / "sharded" / "optimizer").iterdir())) == 2
        assert (checkpoint(run, step) / "pretrained_model" / "model.safetensors").exists() == is_whole
        assert not list(checkpoint(run, step).rglob("optimizer_state.safetensors"))
        verify(checkpoint(run, step))


@pytest.mark.slow
def test_four_workers_compute_what_one_computes(one, root, tmp_path):
    cases = {name: case(root, tmp_path / name, flags, batch_size=2) for name, flags in FOUR.items()}
    run_in_one_start(cases, num_workers=4)
    for name in FOUR:
        assert_equal_to_rounding(tmp_path / name, one / "base")
