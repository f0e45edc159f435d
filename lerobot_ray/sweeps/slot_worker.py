"""What runs in the training processes of a slot: one trial after the other, in the same processes.

Starting processes, importing torch and joining them is most of a short trial's time (`benchmarks/sweeps.py`). Ray
Train starts a slot's workers once; each trial is then a whole training run of its own in them. A trial that raises
takes its processes along, as it would alone: Ray Train starts them anew, and the next trial finds clean ones.
"""

from __future__ import annotations

import contextlib
import gc
import time
from typing import Any

import ray
import ray.train
import ray.train.collective
import torch

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.data.camera_cache import open_cache
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.worker import train_worker
from lerobot_ray.sweeps.slot_board import CLOSE

POLL_S = 0.05


def run_trials(arguments: dict[str, Any]) -> None:
    """The loop that Ray Train runs in every process of a slot: `board` (a SlotBoard)."""
    board = arguments["board"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    frames: dict[str, Any] = {}
    while (number := _next_order(board, rank)) != CLOSE:
        (kept,) = ray.get(board.order.remote())
        setup = ray.get(kept)
        _keep_frames(frames, setup)
        step = _train(setup, board, world_size)
        if rank == 0:
            ray.get(board.done.remote(number, step))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _next_order(board: Any, rank: int) -> int:
    """Collective: every rank calls this."""
    number = None
    if rank == 0:
        while (number := ray.get(board.next_order.remote())) is None:
            time.sleep(POLL_S)
    return ray.train.collective.broadcast_from_rank_zero(number)


def _train(setup: RunSetup, board: Any, world_size: int) -> int | None:
    try:
        return train_worker({"setup": setup, "board": board})
    except LerobotRayError:  # lost data or a lost peer: the run begins again from its last checkpoint
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:2000]
        if world_size == 1:  # nobody else can have caused it, so it would only come again
            ray.get(board.fail.remote(LerobotRayError(text)))
        else:
            ray.get(board.crashed.remote(text))
        raise


def _keep_frames(frames: dict[str, Any], setup: RunSetup) -> None:
    """Hold on to the node's decoded frames, which go with their last user: the next trial needs the same ones."""
    settings = setup.spec.cache
    if settings is None:
        return
    key = f"{settings} {setup.spec.metadata.repo_id}"
    if key not in frames:
        with contextlib.suppress(LerobotRayError):  # decoding goes on without
            frames[key] = open_cache(settings, setup.spec.metadata)
