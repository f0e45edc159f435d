"""A run that lerobot-train began goes on here, by one command, with the samples LeRobot would have taken next."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lerobot_ray.data.order import lerobot_epoch
from lerobot_ray.data.plan import samples_seen_of_lerobot_step
from tests.on_ray.runs import TINY_ACT, checkpoint, losses, samples
from tests.parity.peer import run_lerobot_train, run_peer

pytestmark = [pytest.mark.lerobot, pytest.mark.slow, pytest.mark.ray]

BATCH, THERE, HERE = 4, 3, 6


def test_a_checkpoint_of_lerobot_goes_on_here(tmp_path):
    run_peer("make_dataset.py", tmp_path / "dataset")
    options = dict(flag.removeprefix("--policy.").split("=") for flag in TINY_ACT if "policy.type" not in flag)
    run_lerobot_train(
        dataset__repo_id="local/tiny",
        dataset__root=tmp_path / "dataset",
        policy__type="act",
        policy__push_to_hub="false",
        batch_size=BATCH,
        steps=THERE,
        save_freq=THERE,
        num_workers=0,
        wandb__enable="false",
        output_dir=tmp_path / "there",
        **{f"policy__{name}": value for name, value in options.items()},
    )
    begun = tmp_path / "there" / "checkpoints" / f"{THERE:06d}"
    flags = [f"--config_path={begun}", "--resume=true", f"--output_dir={tmp_path / 'here'}", f"--steps={HERE}"]
    flags += ["--audit=true", "--log_freq=1", "--num_workers=0", "--mlflow.enable=false", "--save_freq=2"]
    done = subprocess.run(
        [sys.executable, "-m", "lerobot_ray.train", *flags], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(losses(tmp_path / "here")) == list(range(THERE + 1, HERE + 1))
    record = checkpoint(tmp_path / "here", HERE) / "training_state" / "lerobot_ray_state.json"
    state = json.loads(record.read_text())
    size, seed = state["order"]["num_samples"], state["order"]["seed"]
    assert (state["order"]["name"], state["step"]) == ("lerobot", HERE)
    first = samples_seen_of_lerobot_step(THERE, size, BATCH)
    q, step, episode, frame = samples(tmp_path / "here")
    assert np.array_equal(q, np.arange(first, first + BATCH * (HERE - THERE)))
    assert np.array_equal(step, THERE + (q - first) // BATCH)
    info = json.loads((tmp_path / "dataset" / "meta" / "info.json").read_text())
    length = info["total_frames"] // info["total_episodes"]
    wanted = np.array([lerobot_epoch(size, seed, epoch) for epoch in range(q[-1] // size + 1)]).ravel()[q]
    assert np.array_equal(episode * length + frame, wanted)
