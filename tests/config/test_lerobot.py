"""LeRobot itself reads what is written here. Needs `PEER_PYTHON`, an interpreter with lerobot 0.6.1."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

from lerobot_ray.config.files import save_train_config
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.config.policy_file import save_policy_config
from tests.config.test_parse import LEROBOT_FLAGS, NEWER_LEROBOT_FLAGS

PEER_PYTHON = os.environ.get("PEER_PYTHON")
pytestmark = [pytest.mark.lerobot, pytest.mark.skipif(not PEER_PYTHON, reason="needs PEER_PYTHON")]

OURS = shlex.split("""
--dataset.order=shards --dataset.cache=disk --dataset.exclude_episodes=[1] --audit --global_batch_size=32
--resume=auto --keep_last=2 --on_nonfinite=skip --ray.num_workers=2 --mlflow.enable=false --hub.what=model
--job.target=ray --job.retries=1 --eval.num_actors=2 --ema.enable=true --parallelism.dp_shard=2 --env.type=reach
""")
DATASET = ["--dataset.repo_id=user/data", "--output_dir=out"]
RUNS = {
    "act": [*DATASET, "--policy.type=act"],
    "diffusion": [*DATASET, "--policy.type=diffusion", "--policy.crop_ratio=0.9", "--policy.resize_shape=[84, 84]"],
    "all_of_lerobots": LEROBOT_FLAGS,
    "all_of_newer_lerobots": [*LEROBOT_FLAGS, *NEWER_LEROBOT_FLAGS],
    "aloha": [*DATASET, "--policy.type=act", "--env.type=aloha", "--env.obs_type=pixels", "--env.observation_height=9"],
    "pusht": [*DATASET, "--policy.type=act", "--env.type=pusht", "--env.obs_type=environment_state_agent_pos"],
    "act_ours": [*DATASET, "--policy.type=act", *OURS],
    "diffusion_ours": [*DATASET, "--policy.type=diffusion", *OURS, "--scheduler=null", "--optimizer.type=sgd"],
}

READ_AND_WRITE = """
import sys
from pathlib import Path
import lerobot.envs.configs, lerobot.policies
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
for folder in map(Path, sys.argv[1:]):
    (folder / "again").mkdir()
    TrainPipelineConfig.from_pretrained(folder).save_pretrained(folder / "again")
    PreTrainedConfig.from_pretrained(folder).save_pretrained(folder / "again")
"""


def test_lerobot_reads_what_is_written_here_and_writes_the_same(tmp_path):
    for name, flags in RUNS.items():
        config = parse_train_config([*flags, "--policy.device=cpu", "--eval.batch_size=1"])
        save_train_config(config, tmp_path / name)
        save_policy_config(config.policy, tmp_path / name)
    folders = [str(tmp_path / name) for name in RUNS]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PEER_PYTHON, "-c", READ_AND_WRITE, *folders], text=True, capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    for name in RUNS:
        for file in ("train_config.json", "config.json"):
            here, there = ((tmp_path / name / part / file).read_text() for part in (".", "again"))
            assert json.loads(here) == json.loads(there), (name, file)


def test_lerobot_would_refuse_a_key_more(tmp_path):
    """The reason for the second file; if this ever passes there, both can be one."""
    save_train_config(parse_train_config(RUNS["act"]), tmp_path)
    file = tmp_path / "train_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "audit": True}))
    done = subprocess.run([PEER_PYTHON, "-c", READ_AND_WRITE, str(tmp_path)], text=True, capture_output=True)
    assert done.returncode != 0
    assert "`audit`" in done.stderr
