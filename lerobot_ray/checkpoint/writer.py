"""Writes checkpoints beside training: one thread, at most one save in flight, and old ones removed by the rules."""

from __future__ import annotations

import functools
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lerobot_ray.checkpoint.commit import Entries, complete_checkpoints, new_checkpoint, step_name, sweep
from lerobot_ray.checkpoint.in_flight import InFlight
from lerobot_ray.checkpoint.retention import Retention, note_score
from lerobot_ray.checkpoint.snapshot import Snapshot
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import CHECKPOINTS_DIR

logger = logging.getLogger(__name__)

_MB = 1e6


class CheckpointWriter:
    """Lives on rank 0 from start-up to the end of the run; no other writer of the same run may be alive.

    `write` fills an open checkpoint folder and returns what others have written and hashed there, if any;
    `after_commit` gets the finished one, still in the thread. What either raises comes out of the next `submit`,
    `check`, `wait` or `close`.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        total_steps: int,
        write: Callable[[Snapshot, Path], Entries | None],
        after_commit: Callable[[Path], None] | None = None,
        retention: Retention | None = None,
        may_remove: Callable[[Path], bool] = lambda _: True,
        mark: str | None = None,
    ) -> None:
        """`may_remove` says no to an old checkpoint that somebody still reads; it is asked again later.

        `mark` tells the other ranks of this start the folder to write into.
        """
        self._run_dir, self._total_steps = Path(run_dir), total_steps
        self._write, self._after_commit = write, after_commit
        self._retention, self._may_remove = retention or Retention(), may_remove
        self._mark = mark
        self._in_flight = InFlight("checkpoint")
        self._scores_lock = threading.Lock()
        sweep(self._run_dir)

    def submit(self, snapshot: Snapshot) -> None:
        """Begin to write `snapshot`, once the one before is written. Takes the snapshot over."""
        self._in_flight.submit(functools.partial(self._save, snapshot))

    def check(self) -> None:
        """Raise what a finished save met; waits for nothing."""
        self._in_flight.check()

    def wait(self) -> None:
        """Until nothing is in flight. Before a snapshot is taken it keeps host memory at one of them."""
        self._in_flight.wait()

    def close(self) -> None:
        """The last save is awaited, and what it met is raised."""
        self.wait()

    def note_score(self, step: int, value: float) -> None:
        """What the checkpoint of `step` is worth, now or later: kept in `checkpoints/scores.json` over restarts."""
        with self._scores_lock:
            note_score(self._run_dir, step, value)

    def _save(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        step = snapshot.record.step
        final = self._run_dir / CHECKPOINTS_DIR / step_name(step, self._total_steps)
        hashed: Entries = {}
        try:
            with new_checkpoint(
                self._run_dir, step, total_steps=self._total_steps, mark=self._mark, hashed=hashed
            ) as folder:
                hashed.update(self._write(snapshot, folder) or {})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(self._what_failed(final, error, snapshot.num_bytes)) from error
        logger.info("checkpoint of step %d written in %.1f s: %s", step, time.monotonic() - started, final)
        if self._after_commit is not None:
            self._after_commit(final)
        self.remove_old()

    def _what_failed(self, final: Path, error: Exception, needed: int) -> str:
        free = shutil.disk_usage(self._run_dir).free
        before = complete_checkpoints(self._run_dir)
        intact = f"The one before, {before[-1]}, is intact." if before else "There is none before it."
        advice = "Free some space or set --keep_last, then" if free < needed else "Once that is mended,"
        return (
            f"{final} cannot be written: {error}. {free / _MB:.1f} MB are free there, it needs about "
            f"{needed / _MB:.1f} MB. {intact} {advice} go on with --resume=auto."
        )

    def remove_old(self) -> None:
        """Delete what the rules no longer keep. Not while a save is in flight, which ends with this."""
        self._retention.apply(self._run_dir, may_remove=self._may_remove)
