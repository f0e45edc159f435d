"""Random numbers that are a pure function of (seed, stream index, camera), the same on every machine and device.

Few numbers (which transforms, how strong) come from numpy's Philox, whose raw bits numpy promises for good. Many
(noise for every pixel) are computed where the pixels are, by a counter-based generator in plain integer arithmetic, so
that a GPU and a CPU add the same noise.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

_BATCH = 32
_MASK = (1 << 64) - 1


class Draws:
    """The numbers of one place in the stream and one camera, in the order they are asked for."""

    def __init__(self, seed: int, stream_index: int, camera: str) -> None:
        digest = hashlib.blake2b(f"{seed}\n{camera}".encode(), digest_size=8).digest()
        key = np.array([int.from_bytes(digest, "little"), stream_index & _MASK], dtype=np.uint64)
        self._generator = np.random.Philox(key=key)
        self._words: list[int] = []

    def word(self) -> int:
        """64 random bits."""
        if not self._words:
            self._words = self._generator.random_raw(_BATCH).tolist()[::-1]
        return self._words.pop()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """In [low, high)."""
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """Low to high, both included."""
        return low + (self.word() * (high - low + 1) >> 64)

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def subset(self, weights: list[float], count: int) -> list[int]:
        """`count` distinct positions, one after another, each with a chance proportional to its weight in the rest."""
        left, chosen = list(range(len(weights))), []
        for _ in range(count):
            point = self.uniform(0.0, sum(weights[i] for i in left))
            for i in left:
                point -= weights[i]
                if point < 0:
                    break
            left.remove(i)
            chosen.append(i)
        return chosen

    def shuffled(self, count: int) -> list[int]:
        """The positions 0 to count - 1 in random order."""
        return self.subset([1.0] * count, count)

    def key(self) -> int:
        """A key for `normal_pixels` or another generator: a signed 64-bit number."""
        return _signed(self.word())


def normal_pixels(key: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Standard normal float32 values, a pure function of the key and each value's position."""
    count = math.prod(shape)
    words = _mixed(torch.arange((count + 1) // 2, dtype=torch.int64, device=device), key)
    # Box-Muller on the two halves of each word.
    radius = torch.sqrt(-2.0 * torch.log(_unit(_shifted(words, 32))))
    angle = _unit(words & 0xFFFFFFFF) * (2.0 * math.pi)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)]).flatten()[:count].reshape(shape)


def uniform_pixels(key: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Uniform uint8 values, a pure function of the key and each value's position."""
    words = _mixed(torch.arange(math.prod(shape), dtype=torch.int64, device=device), key)
    return (words & 0xFF).to(torch.uint8).reshape(shape)


def _mixed(counter: torch.Tensor, key: int) -> torch.Tensor:
    """SplitMix64 (Steele et al., 2014): a bijection of 64 bits, here on signed words that wrap around."""
    words = counter * _signed(0x9E3779B97F4A7C15) + key
    words = (words ^ _shifted(words, 30)) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ _shifted(words, 27)) * _signed(0x94D049BB133111EB)
    return words ^ _shifted(words, 31)


def _shifted(words: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, filling with zeros: torch's own shift keeps the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _unit(words: torch.Tensor) -> torch.Tensor:
    """32 bits to float32 in (0, 1]."""
    return (words.to(torch.float32) + 0.5) * 2.0**-32


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
