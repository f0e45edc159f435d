"""How a run ended: the report page, what is said, the exit code."""

from __future__ import annotations

import logging
import shutil
import sys
import traceback
from pathlib import Path

from lerobot_ray.on_ray.hub_side import not_pushed, push_command
from lerobot_ray.on_ray.mirroring import collect, last_checkpoint, send_rest
from lerobot_ray.on_ray.run_folder import RAY_DIR
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.wrapped import own_error

logger = logging.getLogger(__name__)


def conclude(setup: RunSetup, error: BaseException | None, received: list[int]) -> int:
    """Write the report, say where everything is; the exit code."""
    if setup.store is not None:
        collect(setup.store, setup.output_dir)
    with_report(setup.output_dir)
    if setup.store is not None:
        send_rest(setup.store, setup.output_dir)
    shutil.rmtree(setup.output_dir / RAY_DIR, ignore_errors=True)
    last = last_checkpoint(setup.store, setup.output_dir)
    where = f"The last checkpoint is {last}." if last else "There is no checkpoint."
    if error is not None:
        say(f"error: {own_error(error) or text_of(error)}")
        if last:
            say(f"{where} Continue with --resume=auto.")
        if setup.push is not None and setup.push.checkpoints and (absent := not_pushed(setup, setup.push)):
            names = ", ".join(path.name for path in absent)
            say(f"not on the Hub yet: {names}. A resumed run brings them there, or: {push_command(setup, setup.push)}")
        return 1
    if received:
        say(f"stopped. {where} Continue with --resume=auto.")
        return 128 + received[0]
    say(f"done. {where}")
    return 0


def with_report(output_dir: Path) -> None:
    """The run's page; its absence is worth a line, not a run."""
    try:
        from lerobot_ray.report_page import write_report

        say(f"report: {write_report(output_dir)}")
    except Exception as error:
        logger.warning("no report page: %s", error)


def text_of(error: BaseException) -> str:
    """Another error: what it says, with the stack of the first worker that met it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, failure = next(iter(failures.items()))
        return f"worker {rank} failed: {failure}"
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def say(text: str) -> None:
    """To the person who started the run."""
    sys.stderr.write(f"{text}\n")
