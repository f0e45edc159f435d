"""A place where trials are trained, one after the other: the driver's end of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.on_ray.cluster import Workers
from lerobot_ray.on_ray.fit import torch_trainer
from lerobot_ray.on_ray.run_setup import RunSetup

CLOSING_S = 60.0


class Slot:
    """One Ray Train worker group, alive for the whole sweep, and the board it is told things by."""

    def __init__(self, number: int, workers: Workers, *, folder: Path, config: RayConfig, max_failures: int) -> None:
        from lerobot_ray.on_ray.board import start_board
        from lerobot_ray.sweeps.slot_board import SlotBoard
        from lerobot_ray.sweeps.slot_worker import run_trials

        self.number = number
        self.trial: int | None = None
        """The trial it is at."""
        self.board: Any = start_board(SlotBoard)
        self.error: BaseException | None = None
        self._orders = 0
        trainer = torch_trainer(
            run_trials,
            {"board": self.board},
            workers,
            folder=folder,
            config=config,
            max_failures=max_failures,
        )
        self._thread = threading.Thread(target=self._fit, args=(trainer.fit,), daemon=True, name=f"slot-{number}")
        self._thread.start()

    def begin(self, trial: int, setup: RunSetup) -> None:
        import ray

        self._orders += 1
        self.trial = trial
        self.board.assign.remote(self._orders, [ray.put(setup)], setup.config.ray.max_failures)

    def stop(self, reason: str) -> None:
        """Ask the trial to save and leave."""
        self.board.request_stop.remote(reason)

    def take(self) -> Any:
        """A future of what was posted since the last call."""
        return self.board.take.remote()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the workers leave when they have nothing to do. Waits for that, unless they are at a trial."""
        self.board.close.remote()
        self._thread.join(timeout=CLOSING_S if self.trial is None else 1.0)

    def _fit(self, fit: Callable[[], Any]) -> None:
        try:
            fit()
        except BaseException as error:
            self.error = error
