"""Numbers between two log lines: sums kept on the device, read once a window, so that no step waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Meters:
    """Means over a window of steps. Tensors are accumulated where they are and copied to the host by `window`."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor | float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, torch.Tensor | float]) -> None:
        """Add one step's values. A tensor may still be being computed; nothing waits for it."""
        for name, value in values.items():
            value = value.detach() if isinstance(value, torch.Tensor) else float(value)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the block's wall time, in seconds, to this step's `name`: host time, the device may lag behind."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - started})

    def window(self) -> dict[str, float]:
        """The means since the last call. Waits for the device."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means
