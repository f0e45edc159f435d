"""What a step draws follows from (seed, step, rank): ranks differ, and a resumed run draws what the unbroken one did.

Native policies key their noise by stream index and do not touch these generators. Dropout, and policies from elsewhere,
do. Evaluation runs inside `undisturbed`, so that turning it on changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set Python's, numpy's and torch's generators for one step of one rank."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1] & 0xFFFFFFFF))
    torch.manual_seed(int(words[2] >> 1))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put every generator back as it was when the block ends."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
