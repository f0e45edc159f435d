"""Stores for tests of the mirror: an S3 on this machine, a folder and a memory behind a URL; small checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

from lerobot_ray.checkpoint.commit import new_checkpoint
from lerobot_ray.checkpoint.store import RunStore
from lerobot_ray.data.retry import RetryPolicy
from tests.s3_server import S3Server

IMPATIENT = RetryPolicy(attempts=2, first_wait_s=0.01)


def store_in(s3: S3Server, tmp_path: Path, kind: str = "s3") -> RunStore:
    """An empty store of this test's own. The environment has to lead to the S3 already."""
    s3.log.clear()
    s3.faults.clear()
    urls = {
        "s3": f"s3://bucket/{tmp_path.name}",
        "s3, by flag": f"s3://bucket/{tmp_path.name}?endpoint_override={s3.endpoint[7:]}&scheme=http",
        "folder": f"file://{tmp_path}/store",
        "memory": f"memory://{tmp_path.name}",
    }
    return RunStore(urls[kind], IMPATIENT)


def save(run_dir: Path, step: int, text: str = "weights") -> Path:
    """A complete checkpoint of a few kilobytes."""
    with new_checkpoint(run_dir, step, total_steps=100) as folder:
        (folder / "pretrained_model").mkdir()
        (folder / "pretrained_model" / "model.safetensors").write_text(f"{step} {text} " * 1000)
        (folder / "training_state").mkdir()
        (folder / "training_state" / "training_step.json").write_text(json.dumps({"step": step}))
    return run_dir / "checkpoints" / f"{step:06d}"
