"""What a tracker is: told of a run's start, its numbers, its checkpoints and its end. One process of a run has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One start of a run: the first, or one more after a restart or resume. Holds no secrets; plain JSON values."""

    output_dir: Path
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """The whole config, encoded."""
    total_steps: int = 0
    first_step: int = 0
    """Optimizer steps already taken: 0 for a new run, the checkpoint's step on resume."""
    samples_seen: int = 0
    world_size: int = 1
    global_batch: int = 1
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Versions and hardware: see `environment.describe_environment`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is worth telling about this run beside its config: number of samples, of parameters, …"""


@dataclass(frozen=True)
class Outcome:
    """How a start of a run ended. A killed one ends without."""

    status: Status = "finished"
    """finished: all steps done. stopped: asked to stop, to be continued. failed: an error, told in `message`."""
    message: str = ""


class Tracker(Protocol):
    """Where numbers go. Called on rank 0 only, from one thread, `start` first and `close` last.

    May be slow and may raise: `GuardedTrackers` keeps both from the loop. `start` may be called again after it raised.
    """

    def start(self, run: RunInfo) -> None: ...

    def log(self, values: Mapping[str, float], *, step: int, time_s: float | None = None) -> None:
        """Numbers known after `step` optimizer steps, with prefixed names (`train/loss`), once per log interval.

        `time_s` is the Unix time they were known; None: now. A value may be infinite or not a number.
        """

    def log_checkpoint(self, checkpoint: Path, *, step: int) -> None:
        """A checkpoint is complete. It stays where it is; a tracker keeps a reference."""

    def log_file(self, path: Path, *, folder: str = "") -> None:
        """A small file worth keeping with the run, such as a video of an evaluation."""

    def close(self, outcome: Outcome) -> None: ...
