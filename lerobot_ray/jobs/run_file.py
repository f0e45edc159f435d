"""The run as it travels: one JSON file, and the words that make a `lerobot_ray.train` of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lerobot_ray.config.encode import encode
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.tracking.redact import redacted

RUN_FILE = "lerobot_ray_job.json"
CLIENT_SETTINGS = ("config_path", "resume", "output_dir", "dataset.root", "ray.address")
"""Settings that a resumed job gets from the submission, not from the words that were typed; so is all of `job`."""


def run_as_text(config: TrainConfig) -> str:
    """The config as JSON that `--config_path` reads. ConfigError when it holds credentials: others see a job."""
    tree = encode(config)
    for hidden in ("resume", "checkpoint_path", "job"):
        tree.pop(hidden, None)
    if found := _secrets(tree, redacted(tree)):
        raise ConfigError(
            f"{found[0]} holds credentials, and a job's settings are shown to everybody who may use the cluster. Give "
            "them as environment variables and name those in --job.env."
        )
    return json.dumps(tree)


def stage(text: str | None, folder: Path, *, working_dir: str | None) -> Path:
    """Fills an empty folder with the run file and a copy of the user's own working folder."""
    if working_dir is not None:
        source = Path(working_dir).expanduser()
        if not source.is_dir():
            raise ConfigError(f"job.working_dir={working_dir} is not a folder of this machine.")
        leave = shutil.ignore_patterns(".git", ".venv", "venv", "__pycache__", "outputs", ".mypy_cache", ".ruff_cache")
        shutil.copytree(source, folder, ignore=leave, copy_function=_link_or_copy, dirs_exist_ok=True)
    if text is not None:
        (folder / RUN_FILE).write_text(text, encoding="utf-8")
    return folder


def forwarded(words: Iterable[str], *, drop: Iterable[str] = CLIENT_SETTINGS) -> list[str]:
    """The words of a command line without those that concern the client alone, as --name=value."""
    from lerobot_ray.config.flags import read_flags

    left = set(drop)
    flags = read_flags(list(words))
    kept = {".".join(path): text for path, text in flags.items()}
    return [f"--{name}={text}" for name, text in kept.items() if name not in left and name.partition(".")[0] != "job"]


def plugins_of(words: Iterable[str]) -> list[str]:
    """The words that name packages with policies and environments of one's own."""
    return [word for word in forwarded(words) if word.partition("=")[0].endswith(".discover_packages_path")]


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _secrets(tree: object, masked: object, name: str = "") -> list[str]:
    """Dotted names of the values that masking has changed."""
    if isinstance(tree, dict) and isinstance(masked, dict):
        return [found for key in tree for found in _secrets(tree[key], masked[key], f"{name}.{key}".lstrip("."))]
    if isinstance(tree, list) and isinstance(masked, list):
        return [found for one, other in zip(tree, masked, strict=True) for found in _secrets(one, other, name)]
    return [] if tree == masked else [name]
