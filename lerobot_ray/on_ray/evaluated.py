"""Which checkpoints of a run are to be evaluated, and which have been, read from its folder by driver and rank 0.

    eval/eval_info_step_000400.json      the result, written last: the step is evaluated
    eval/eval_failed_step_000400.json    why there is none; the next start of the run tries again
    eval/videos_step_000400/             videos of the first episodes

Both files name the checkpoint by the hash of its manifest, so that the result of a step that was trained again is not
taken for that of the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from lerobot_ray.checkpoint.commit import MANIFEST_NAME, complete_checkpoints, file_sha256
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.layout import PRETRAINED_DIR, PRETRAINED_EMA_DIR

EVAL_DIR = "eval"


def evaluates(config: TrainConfig) -> bool:
    """Whether the run plays episodes at all."""
    return config.env is not None and config.env_eval_freq > 0


def is_due(config: TrainConfig, step: int) -> bool:
    """Whether the checkpoint of this step is to be evaluated: every `env_eval_freq` steps, and the last."""
    return evaluates(config) and (step % config.env_eval_freq == 0 or step == config.steps)


def info_path(checkpoint: Path) -> Path:
    return _eval_dir(checkpoint) / f"eval_info_step_{checkpoint.name}.json"


def failed_path(checkpoint: Path) -> Path:
    return _eval_dir(checkpoint) / f"eval_failed_step_{checkpoint.name}.json"


def video_dir(checkpoint: Path) -> Path:
    return _eval_dir(checkpoint) / f"videos_step_{checkpoint.name}"


def recording_dir(checkpoint: Path) -> Path:
    return _eval_dir(checkpoint) / f"recording_step_{checkpoint.name}"


def mark_of(checkpoint: Path) -> str:
    """Tells a checkpoint from another one of the same step."""
    return file_sha256(checkpoint / MANIFEST_NAME)


def is_evaluated(checkpoint: Path) -> bool:
    """Whether there is a result of exactly this checkpoint."""
    return _is_of(info_path(checkpoint), checkpoint)


def is_settled(checkpoint: Path) -> bool:
    """Whether this checkpoint is evaluated, or could not be."""
    return is_evaluated(checkpoint) or _is_of(failed_path(checkpoint), checkpoint)


def owed(config: TrainConfig, run_dir: Path) -> list[Path]:
    """Complete checkpoints that are due and not evaluated, oldest first."""
    if not evaluates(config):
        return []
    return [path for path in complete_checkpoints(run_dir) if is_due(config, int(path.name)) and not is_evaluated(path)]


def held_back(config: TrainConfig, checkpoints: Iterable[Path]) -> set[int]:
    """Steps whose checkpoints must stay for now: they wait for their evaluation, or are in it."""
    due = [path for path in checkpoints if is_due(config, int(path.name))]
    return {int(path.name) for path in due if not is_settled(path)}


def evaluated_folder(checkpoint: Path, config: TrainConfig) -> Path:
    """The policy folder that is played: with averaged weights where they are kept and asked for."""
    average = checkpoint / PRETRAINED_EMA_DIR
    return (
        average if config.ema.enable and config.ema.use_for_eval and average.is_dir() else checkpoint / PRETRAINED_DIR
    )


def _eval_dir(checkpoint: Path) -> Path:
    return checkpoint.parent.parent / EVAL_DIR


def _is_of(document: Path, checkpoint: Path) -> bool:
    try:
        about = json.loads(document.read_text(encoding="utf-8"))["evaluation"]
    except (OSError, ValueError, KeyError):
        return False
    return about.get("checkpoint") == mark_of(checkpoint)
