"""From what a person points at to a complete checkpoint, or a list of what is there."""

import shutil

import pytest

from lerobot_ray.checkpoint.commit import MANIFEST_NAME
from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.core.errors import CheckpointError
from tests.checkpoint.runs import make_run


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    run = make_run(with_ema=False)
    for _ in range(2):
        run.train(1)
        run.save(run_dir)
    return run_dir


@pytest.fixture
def run_dir(one_run, tmp_path):
    shutil.copytree(one_run, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("pointed_at", "found"),
    [
        (".", "000002"),
        ("checkpoints", "000002"),
        ("checkpoints/last", "000002"),
        ("checkpoints/last/pretrained_model/train_config.json", "000002"),
        ("checkpoints/000001", "000001"),
        ("checkpoints/000001/pretrained_model", "000001"),
        ("checkpoints/000001/training_state", "000001"),
        ("checkpoints/000001/pretrained_model/train_config.json", "000001"),
    ],
)
def test_whatever_names_it(run_dir, pointed_at, found):
    # its own folder, never `last`, which moves on while the resumed run saves
    assert find_checkpoint(run_dir / pointed_at) == run_dir / "checkpoints" / found


def test_of_a_run_the_newest_complete_one_whatever_last_says(run_dir):
    weights = run_dir / "checkpoints" / "000002" / "pretrained_model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert find_checkpoint(run_dir).name == "000001"
    with pytest.raises(CheckpointError, match=r"model\.safetensors missing or cut short.*000001 \(complete\)"):
        find_checkpoint(run_dir / "checkpoints" / "last")


@pytest.mark.parametrize(
    "name",
    [
        "pretrained_model/model.safetensors",
        "training_state/optimizer_state.safetensors",
        "training_state/scheduler_state.json",
        "training_state/training_step.json",
    ],
)
@pytest.mark.parametrize("harm", ["gone", "short"])
def test_without_a_list_of_files_as_in_lerobot_the_files_are_looked_at(run_dir, name, harm):
    newest = run_dir / "checkpoints" / "000002"
    (newest / MANIFEST_NAME).unlink()
    assert find_checkpoint(run_dir) == newest
    path = newest / name
    content = path.read_bytes()
    path.unlink()
    if harm == "short":
        path.write_bytes(content[: len(content) // 2])
    assert find_checkpoint(run_dir).name == "000001"


def test_nothing_there_is_said_with_what_is(run_dir, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*000007.*000001 \(complete\), 000002 \(complete\)"):
        find_checkpoint(run_dir / "checkpoints" / "000007")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no checkpoint, complete or not"):
        find_checkpoint(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        find_checkpoint(tmp_path / "nowhere")
    for step in ("000001", "000002"):
        shutil.rmtree(run_dir / "checkpoints" / step / "training_state")
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        find_checkpoint(run_dir)
