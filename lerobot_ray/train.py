"""`python -m lerobot_ray.train`: train a policy with lerobot-train's flags, on this machine or a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lerobot_ray.config.command_line import run_words
from lerobot_ray.config.flags import read, read_flags
from lerobot_ray.config.help import help_text
from lerobot_ray.config.job import is_remote
from lerobot_ray.config.parse import chosen_kinds, gather, parse_train_config
from lerobot_ray.config.train import TrainConfig, default_output_dir, run_name
from lerobot_ray.jobs.deadline import TIMED_OUT, deadline_of_job
from lerobot_ray.jobs.hub_repo import fetch_descriptions

USAGE = "python -m lerobot_ray.train --dataset.repo_id=USER/NAME --policy.type=act [--flag=value …]"
ABOUT = (
    "Trains a LeRobot policy on a LeRobot dataset. With --policy.type=… this page also lists that policy's own flags; "
    "so it does for --env.type, --optimizer.type and --scheduler.type."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 2 when it describes no run."""
    return run_words(argv, run, help_page=help_page)


def run(words: list[str]) -> int:
    """Refuse, submit or train."""
    goes_elsewhere = read(read_flags(words).get(("job", "target"))) not in (None, "local")
    config = parse_train_config(words, fetch=fetch_descriptions if goes_elsewhere else fetch_from_elsewhere)
    if is_remote(config.job):
        from lerobot_ray.jobs.command import submit_run

        return submit_run(words, config.job)
    now = datetime.now()
    config = dataclasses.replace(
        config, output_dir=config.output_dir or default_output_dir(config, now), job_name=run_name(config)
    )
    from lerobot_ray.on_ray.trainer import train  # not before: ray and torch take seconds to import

    deadline = deadline_of_job(os.environ)
    code = train(config)
    if deadline is None or not deadline.passed:
        return code
    print("the time of this job is up (job.timeout)", file=sys.stderr)
    return TIMED_OUT


def fetch_from_elsewhere(name: str, *, revision: str | None, what: Any) -> Path:
    """The folder with what a flag names on the Hub or in an object store."""
    from lerobot_ray.hub.elsewhere import fetch

    return fetch(name, revision=revision, what=what)


def help_page(words: Sequence[str]) -> str:
    """The help of a command line: that of the kinds its other flags choose."""
    return help_text(TrainConfig, usage=USAGE, about=ABOUT, chosen=chosen_kinds(gather(words).tree))


if __name__ == "__main__":
    sys.exit(main())
