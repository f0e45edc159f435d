"""A checkpoint exists when it is complete: kills at random moments, full disks, retries."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints, new_checkpoint, step_name, sweep, verify
from lerobot_ray.core.errors import CheckpointError


def write_files(folder, step, size=20_000):
    (folder / "pretrained_model").mkdir()
    (folder / "pretrained_model" / "model.safetensors").write_bytes(bytes([step % 251]) * size)
    (folder / "training_state").mkdir()
    (folder / "training_state" / "training_step.json").write_text(f'{{"step": {step}}}')


def save(run_dir, step):
    with new_checkpoint(run_dir, step, total_steps=100) as folder:
        write_files(folder, step)


def test_names_are_padded_as_lerobot_pads_them():
    assert step_name(5000, 100_000) == "005000"
    assert step_name(5, 20_000_000) == "00000005"


def test_commits_in_order_and_last_points_at_the_newest(tmp_path):
    for step in (2, 10, 4):
        save(tmp_path, step)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["000002", "000004", "000010"]
    assert os.readlink(tmp_path / "checkpoints" / "last") == "000004"
    verify(tmp_path / "checkpoints" / "000010")


def test_an_error_while_writing_leaves_the_previous_one_alone(tmp_path):
    save(tmp_path, 2)

    def fail():
        with new_checkpoint(tmp_path, 4, total_steps=100) as folder:
            write_files(folder, 4)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["000002", "last"]


def test_the_same_step_again_replaces_the_old_one_whole(tmp_path):
    save(tmp_path, 2)
    with new_checkpoint(tmp_path, 2, total_steps=100) as folder:
        (folder / "other.txt").write_text("new")
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["000002"]
    assert not (tmp_path / "checkpoints" / "000002" / "pretrained_model").exists()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["000002", "last"]


def test_killed_between_the_two_renames_of_a_replacement_the_old_one_comes_back(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "checkpoints" / "000002").rename(tmp_path / "checkpoints" / ".replaced-000002")
    sweep(tmp_path)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["000002"]


def test_a_missing_short_or_changed_file_is_noticed(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    one, two, three = complete_checkpoints(tmp_path)
    (one / "training_state" / "training_step.json").unlink()
    weights = two / "pretrained_model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert complete_checkpoints(tmp_path) == [three]
    weights = three / "pretrained_model" / "model.safetensors"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        verify(three)


def test_a_folder_without_manifest_is_no_checkpoint(tmp_path):
    write_files_into = tmp_path / "checkpoints" / "000005"
    write_files_into.mkdir(parents=True)
    write_files(write_files_into, 5)
    assert complete_checkpoints(tmp_path) == []
    with pytest.raises(CheckpointError, match="not finished"):
        verify(write_files_into)


SAVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_commit import new_checkpoint, write_files
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 1
    with new_checkpoint(Path(sys.argv[1]), step, total_steps=100) as folder:
        write_files(folder, step, size=200_000)
"""


def test_killed_at_any_moment_what_is_listed_is_whole(tmp_path):
    """kill -9 in the middle of saving, again and again; the listed checkpoints always verify and never go back."""
    moments = random.Random(0)
    newest = 0
    for _ in range(12):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER.format(tests=os.path.dirname(__file__)), str(tmp_path), str(newest)],
            stdout=subprocess.PIPE,
        )
        assert saver.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0.0, 0.12))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        found = complete_checkpoints(tmp_path)
        for checkpoint in found[-3:]:
            verify(checkpoint)
            step = int(checkpoint.name)
            assert f'"step": {step}}}' in (checkpoint / "training_state" / "training_step.json").read_text()
        reached = int(found[-1].name) if found else 0
        assert reached >= newest
        newest = reached
        sweep(tmp_path)
        assert not list((tmp_path / "checkpoints").glob(".*"))
    assert newest > 3
