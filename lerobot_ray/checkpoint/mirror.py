"""Copies a run to an object store beside training: its checkpoints as they are complete, its small files with them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from lerobot_ray.checkpoint.carrier import MAX_WAITING, Carrier
from lerobot_ray.checkpoint.retention import Retention
from lerobot_ray.checkpoint.store import RunStore
from lerobot_ray.checkpoint.stored import (
    remove_stored,
    stored_steps,
    sweep_stored,
    upload_checkpoint,
    upload_small_files,
)
from lerobot_ray.data.retry import PATIENT, RetryPolicy

logger = logging.getLogger(__name__)


class Mirror(Carrier):
    """Lives on the rank that writes checkpoints. The rules for old ones hold in the store as well."""

    def __init__(
        self,
        store: RunStore,
        run_dir: Path,
        *,
        retention: Retention,
        retry: RetryPolicy = PATIENT,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._store = store.patient(retry, self._go_on)
        self._retention = retention
        self._is_swept = False
        super().__init__(run_dir, place=store.url, is_there=f"in {store.url}", max_waiting=max_waiting)

    def _bring(self, checkpoint: Path) -> None:
        started = time.monotonic()
        if not self._is_swept:
            sweep_stored(self._store)
            self._is_swept = True
        upload_small_files(self._store, self._run_dir)
        upload_checkpoint(self._store, checkpoint)
        took = time.monotonic() - started
        logger.info("checkpoint of step %d is in %s after %.1f s", int(checkpoint.name), self._store.url, took)
        steps = stored_steps(self._store)
        for step in sorted(steps.keys() - self._retention.kept(self._run_dir, steps)):
            remove_stored(self._store, steps[step])

    def _remedy(self) -> str:
        return "The same command with --resume=auto brings there what is still here."
