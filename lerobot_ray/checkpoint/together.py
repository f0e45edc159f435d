"""What the ranks of a run tell one another while they write a checkpoint together, beside training."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import torch

from lerobot_ray.checkpoint.commit import Entries

PATIENCE = datetime.timedelta(hours=2)
"""How long the quickest rank waits for the slowest to have written."""


class Together:
    """One per rank, for its writing thread alone: a group of its own, whose messages mix with nothing of training's."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        """Collective: every rank calls this."""
        self.rank, self.world_size = rank, world_size
        self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE) if world_size > 1 else None

    def write(self, write: Callable[[], Entries]) -> Entries:
        """Collective, in the writing threads: `write` on every rank, then the files of all.

        What `write` raises is raised, and OSError where another rank's could not.
        """
        mine: Entries = {}
        error: Exception | None = None
        try:
            mine = write()
        except Exception as met:
            error = met
        told: list[tuple[Entries, str | None]] = [(mine, f"{type(error).__name__}: {error}" if error else None)]
        if self._group is not None:
            own, told = told[0], [({}, None)] * self.world_size
            torch.distributed.all_gather_object(told, own, group=self._group)
        if error is not None:
            raise error
        for rank, (_, problem) in enumerate(told):
            if problem is not None:
                raise OSError(f"on rank {rank}, {problem}")
        return {name: entry for files, _ in told for name, entry in files.items()}

    def close(self) -> None:
        """After the last checkpoint."""
        if self._group is not None:
            torch.distributed.destroy_process_group(self._group)
            self._group = None
