"""Where a run's checkpoints go beside its folder: the Hub, an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lerobot_ray.on_ray.hub_side import HubSide
from lerobot_ray.on_ray.mirroring import MirrorSide
from lerobot_ray.on_ray.run_setup import RunSetup


class SecondPlace(Protocol):
    """Lives on the rank that writes checkpoints, one per start. None of these raises into training."""

    def submit(self, checkpoint: Path) -> None:
        """A checkpoint is complete. Returns at once."""
        ...

    def may_remove(self, checkpoint: Path) -> bool:
        """Whether nobody reads this checkpoint any more."""
        ...

    def finish(self, *, is_done: bool) -> None:
        """Wait for what is on its way. `is_done`: the run has trained all its steps."""
        ...

    def abandon(self) -> None:
        """The training process ends with an error. After `finish` there is nothing left to abandon."""
        ...


def second_places(setup: RunSetup, *, first_step: int) -> list[SecondPlace]:
    """Those of this run; what an earlier start has left behind is on its way to them."""
    places: list[SecondPlace] = []
    if setup.store is not None:
        places.append(MirrorSide(setup, setup.store, first_step=first_step))
    if setup.push is not None:
        places.append(HubSide(setup, setup.push, first_step=first_step))
    return places
