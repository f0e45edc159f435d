"""Processes that use one frame cache and are killed. Run by test_frame_cache.py, in a process of its own.

`random`: three workers at a time, killed at random instants. `steps`: one worker, killed at its first system call that
changes something, then at its second, and so on (a write is done by half first), until it gets through.

Every frame's bytes follow from (camera, row), so that any process can tell a wrong or half-written frame at once. A
worker that sees one exits with 42.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from lerobot_ray.data.cache import FrameCache

CAMERAS = ("front", "wrist")
SHAPE = (60, 70)
FRAME_BYTES = SHAPE[0] * SHAPE[1]
ROWS = 200


def frames_of(camera: str, rows) -> np.ndarray:
    """Frames that differ from one another in every byte."""
    pattern = np.arange(FRAME_BYTES, dtype=np.uint64).reshape(SHAPE)
    keys = np.asarray(rows, np.uint64)[:, None, None] * np.uint64(7919) + np.uint64(1 + CAMERAS.index(camera))
    return (((pattern + keys) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)).astype(np.uint8)


KNOWN = {camera: frames_of(camera, range(ROWS)) for camera in CAMERAS}


def work(settings: dict, seed: int) -> None:
    """Reads and writes until killed."""
    rng = random.Random(seed)
    cache = FrameCache(**settings)
    while True:
        camera, start = rng.choice(CAMERAS), rng.randrange(ROWS - 12)
        rows = np.array(rng.sample(range(start, start + 12), rng.randint(1, 12)))
        if rng.random() < 0.5:
            rows.sort()
        out = np.zeros((len(rows), *SHAPE), np.uint8)
        tags = np.full(len(rows), 255, np.uint8)
        hits = cache.get(camera, rows, out, tags)
        if not np.array_equal(out[hits], KNOWN[camera][rows[hits]]) or (tags[hits] != rows[hits] % 200).any():
            os._exit(42)
        if not cache.put(camera, rows[~hits], KNOWN[camera][rows[~hits]], rows[~hits] % 200):
            time.sleep(0.001)  # full: leave the processor to the others


def bytes_on_disk(root: Path) -> tuple[int, int]:
    """(promised, allocated) of all chunk files, as the file system sees them."""
    promised = allocated = 0
    for path in root.rglob("*.frames"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        promised, allocated = promised + stat.st_size, allocated + stat.st_blocks * 512
    return promised, allocated


def verify(settings: dict) -> int:
    """What is there is right, and the count of bytes is what the files say; how many frames there are."""
    seen = 0
    with FrameCache(**settings) as cache:
        used = cache.stats().used_bytes
        assert used == bytes_on_disk(settings["directory"])[0], (used, bytes_on_disk(settings["directory"]))
        assert used <= settings["budget_bytes"]
        for camera in CAMERAS:
            out = np.zeros((ROWS, *SHAPE), np.uint8)
            hits = cache.get(camera, np.arange(ROWS), out)
            assert np.array_equal(out[hits], KNOWN[camera][hits])
            seen += int(hits.sum())
    return seen


def fork(task, *arguments) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            task(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(43)
    return pid


def kill_at_random(settings: dict, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    workers: set[int] = set()
    try:
        for _ in range(kills):
            while len(workers) < 3:
                workers.add(fork(work, settings, rng.randrange(1 << 30)))
            time.sleep(rng.random() * 0.03)
            victim = rng.choice(sorted(workers))
            os.kill(victim, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
            workers.remove(victim)
            assert status == -signal.SIGKILL, f"a worker ended by itself with {status}"
            for promised_or_allocated in bytes_on_disk(settings["directory"]):
                assert promised_or_allocated <= settings["budget_bytes"]
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    seen = verify(settings)
    assert seen > 20, "the workers hardly wrote anything: this run shows nothing"
    print(f"{seen} frames left after {kills} kills")


def work_for(settings: dict, steps: int) -> None:
    """Opens the cache, writes, evicts, closes; killed at system call number `steps`."""
    left = steps

    def killed_in(module, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments, **keywords):
            nonlocal left
            left -= 1
            if left == 0:
                if name == "pwrite":
                    real(arguments[0], memoryview(arguments[1]).cast("B")[: -(-len(arguments[1]) // 2)], arguments[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        setattr(module, name, call)

    for name in ("pwrite", "ftruncate", "unlink", "rename", "link", "rmdir", "mkdir", "open", "close", "utime"):
        killed_in(os, name)
    killed_in(fcntl, "flock")
    with FrameCache(**settings) as cache:
        for start in range(0, 60, 12):
            rows = np.arange(start, start + 12)
            cache.put("front", rows, KNOWN["front"][rows])


def kill_at_each_step(settings: dict, first: int, stride: int) -> None:
    for steps in itertools.count(first, stride):
        status = os.waitstatus_to_exitcode(os.waitpid(fork(work_for, settings, steps), 0)[1])
        assert status in (0, -signal.SIGKILL), status
        seen = verify(settings)
        if status == 0:
            break
    assert steps > 50
    assert settings["kind"] == "memory" or seen > 20
    print(f"killed at every {stride} of {steps} steps")


def main(mode: str, kind: str, directory: str, eviction: str, budget_bytes: int, number: int, seed: int) -> None:
    """`number`: kills at random, or the distance of the steps killed at (1: every one, a minute)."""
    settings = {
        "kind": kind,
        "namespace": "torture",
        "budget_bytes": budget_bytes,
        "directory": Path(directory),
        "eviction": eviction,
        "max_open": 3,
    }
    if mode == "random":
        kill_at_random(settings, number, seed)
    else:
        kill_at_each_step(settings, 1 + seed % number, number)


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:8]))
