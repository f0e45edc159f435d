"""Small committed checkpoints: the layout of real ones, a few bytes in each file."""

from __future__ import annotations

import json
from pathlib import Path

from lerobot_ray.checkpoint.commit import new_checkpoint
from lerobot_ray.data.retry import RetryPolicy
from lerobot_ray.hub.push import Patience

QUICK = RetryPolicy(attempts=4, first_wait_s=0.01, longest_backoff_s=0.05, longest_wait_s=0.2)
IN_A_HURRY = Patience(QUICK)


def save(run_dir: Path, step: int, *, seed: str = "", kind: str = "act", weights_bytes: int = 3000) -> Path:
    """A checkpoint of `step`; `seed` makes its contents those of another run."""
    with new_checkpoint(run_dir, step, total_steps=1000) as folder:
        model, state = folder / "pretrained_model", folder / "training_state"
        for part in (model, state):
            part.mkdir()
        (model / "config.json").write_text(json.dumps({"type": kind, "note": seed}))
        (model / "train_config.json").write_text("{}")
        (model / "policy_preprocessor.json").write_text("{}")
        (model / "model.safetensors").write_bytes(f"{step}{seed}".encode() * (weights_bytes // 4))
        (state / "training_step.json").write_text(json.dumps({"step": step}))
        (state / "optimizer_state.safetensors").write_bytes(f"state{step}{seed}".encode() * 900)
    return run_dir / "checkpoints" / f"{step:06d}"


def tags(hub, repo_id: str = "alice/act") -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in hub.api.list_repo_refs(repo_id).tags}


def files_at(hub, revision: str, repo_id: str = "alice/act") -> dict[str, bytes]:
    """Path -> content at a revision, straight from the server's store."""
    commit = hub.store.repos["model", repo_id].resolve(revision)
    return {path: hub.store.blob_path(entry.sha256).read_bytes() for path, entry in commit.files.items()}


def content(checkpoint: Path) -> dict[str, bytes]:
    """What a whole checkpoint looks like in a repository, without its manifest."""
    return {
        f"checkpoints/{checkpoint.name}/{path.relative_to(checkpoint).as_posix()}": path.read_bytes()
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
