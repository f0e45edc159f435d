"""A checkpoint that every rank writes its part of, nothing gathered on any device.

    sharded/model/       the weights            a file of each rank in each; `saved` has the format
    sharded/ema/         the averaged ones
    sharded/optimizer/   the optimizers' tensors, `<optimizer>/<parameter>/<name>`

The rest is as in any checkpoint, but that `pretrained_model` has no weights unless they are asked for: then the first
rank puts them together out of the parts, on disk, one tensor at a time. Ranks hash what they write; the first one
commits when all have written.
"""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.assemble import write_whole
from lerobot_ray.checkpoint.commit import Entries, synced_entry, writing_folder
from lerobot_ray.checkpoint.in_flight import InFlight
from lerobot_ray.checkpoint.save import weights_file_name, write_snapshot
from lerobot_ray.checkpoint.saved import open_saved, write_parts
from lerobot_ray.checkpoint.snapshot import AVERAGE, MODEL, Snapshot
from lerobot_ray.checkpoint.together import Together
from lerobot_ray.core.layout import PRETRAINED_DIR, PRETRAINED_EMA_DIR, SHARDED_DIR

logger = logging.getLogger(__name__)

SEEN_WITHIN_S = 60.0
"""Network file systems show a file of another node after some seconds."""


def write_sharded(snapshot: Snapshot, folder: Path, *, together: Together, has_whole: bool, **model: Any) -> Entries:
    """Collective, in the writing threads, with `PartWriter` on the other ranks: the first rank's side.

    `has_whole`: with the policy's weights in `pretrained_model` as well. `model` is what `write_snapshot` takes.
    Returns what the ranks have synced and hashed.
    """

    def write() -> Entries:
        write_snapshot(snapshot, folder, **model)
        return _write_own(snapshot, folder)

    entries = together.write(write)
    _wait_until_seen(folder, entries)
    if has_whole:
        add_whole_weights(folder / SHARDED_DIR, folder, weights_file_name(snapshot.adapter))
    return entries


class PartWriter:
    """The side of a rank that is not the first. What goes wrong, the first rank raises."""

    def __init__(self, run_dir: Path, *, total_steps: int, mark: str, together: Together) -> None:
        self._run_dir, self._total_steps, self._mark, self._together = run_dir, total_steps, mark, together
        self._in_flight = InFlight("checkpoint part")

    def submit(self, snapshot: Snapshot) -> None:
        """Begin to write `snapshot`, once the one before is written everywhere."""
        self._in_flight.submit(functools.partial(self._save, snapshot))

    def wait(self) -> None:
        """Until nothing is in flight on any rank."""
        self._in_flight.wait()

    def _save(self, snapshot: Snapshot) -> None:
        folder = writing_folder(self._run_dir, snapshot.record.step, total_steps=self._total_steps, mark=self._mark)
        try:
            self._together.write(functools.partial(_write_own, snapshot, folder))
        except Exception as error:
            logger.warning("this rank's part of the checkpoint is not complete: %s", error)


def add_whole_weights(parts: Path, checkpoint: Path, file_name: str) -> None:
    """Put the weights of a folder of parts into the policy folders of a checkpoint, whole."""
    with open_saved(parts / MODEL) as weights:
        write_whole(weights, checkpoint / PRETRAINED_DIR / file_name)
        if (parts / AVERAGE).is_dir():
            with open_saved(parts / AVERAGE) as average:
                write_whole({**weights, **average}, checkpoint / PRETRAINED_EMA_DIR / file_name)


def _write_own(snapshot: Snapshot, folder: Path) -> Entries:
    entries = {}
    for kind, parts in snapshot.parts.items():
        path = write_parts(
            parts, folder / SHARDED_DIR / kind, rank=snapshot.rank, world_size=snapshot.record.world_size
        )
        entries[path.relative_to(folder).as_posix()] = synced_entry(path)
    return entries


def _wait_until_seen(folder: Path, entries: Entries) -> None:
    """OSError unless this node has every rank's file before it."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    for name, entry in entries.items():
        path = folder / name
        while not (path.is_file() and path.stat().st_size == entry["bytes"]):
            if time.monotonic() > deadline:
                raise OSError(
                    f"{name}, which another rank has written, is not seen by the first one. With checkpoint_format=dcp "
                    "all nodes must have the same --output_dir before them"
                )
            time.sleep(0.2)
