"""Noise as a function of (seed, stream index): what a sample is trained with does not depend on who trains it.

A policy that draws from torch's generator gives a sample other noise on another rank, in another micro-batch, or after
a resume. Here a draw is Philox-4x32-10 (Salmon et al., 2011) applied to the counter

    (block number, purpose, stream index low, stream index high)   under the key   (seed low, seed high)

so a global batch sees the same noise however it is split over ranks and micro-batches. Everything is integer
arithmetic on the device of `stream_index`, in static shapes: it compiles into one kernel and never waits for the
host. In eager mode a draw is about 130 small kernels whatever its size, so draw once per forward pass and cut it up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ACT_LATENT = 1
"""Purpose numbers keep the draws of one sample apart. Other packages: use numbers from 1024 on."""
DIFFUSION_LOSS = 2
RANDOM_CROP = 3
DIFFUSION_SAMPLE = 4

_LOW_32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def words(seed: int, purpose: int, stream_index: Tensor, count: int) -> Tensor:
    """`count` random 32-bit words per sample, as int64 (B, count); `stream_index` is int64 (B,)."""
    num_blocks = -(-count // 4)
    block = torch.arange(num_blocks, device=stream_index.device).expand(stream_index.shape[0], num_blocks)
    place = stream_index.long()[:, None].expand_as(block)
    counter = (block, torch.full_like(block, purpose), place & _LOW_32, (place >> 32) & _LOW_32)
    return torch.stack(philox(counter, (seed & _LOW_32, (seed >> 32) & _LOW_32)), dim=-1).flatten(1)[:, :count]


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32 with ten rounds. Words are int64 tensors holding 0 … 2³²−1; the key's are Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap around, but their bits are those of the unsigned product: shift and mask find both halves.
        product_0, product_2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product_2 >> 32) & _LOW_32) ^ c1 ^ k0,
            product_2 & _LOW_32,
            ((product_0 >> 32) & _LOW_32) ^ c3 ^ k1,
            product_0 & _LOW_32,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW_32, (k1 + _KEY_STEPS[1]) & _LOW_32
    return c0, c1, c2, c3


def as_uniform(words: Tensor) -> Tensor:
    """float32 in [0, 1), from the upper 24 bits: every value is exact, so CPU and GPU agree to the bit."""
    return (words >> 8).float() * 2.0**-24


def as_normal(words: Tensor) -> Tensor:
    """float32 standard normal numbers, one per word (an even number of them), by the Box-Muller transform."""
    first, second = words[..., 0::2], words[..., 1::2]
    radius = ((((first >> 8) + 1).float() * 2.0**-24).log() * -2.0).sqrt()  # + 1: log(0) never happens
    angle = as_uniform(second) * (2.0 * math.pi)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(-2)


def as_integer(words: Tensor, high: int) -> Tensor:
    """int64 in 0 … high−1 (high up to 2³¹): the product's upper half, whose bias is below high / 2³²."""
    return (words * high) >> 32


def normals(seed: int, purpose: int, stream_index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32 standard normal numbers (B, *shape)."""
    count = math.prod(shape)
    drawn = as_normal(words(seed, purpose, stream_index, count + count % 2))[:, :count]
    return drawn.reshape(stream_index.shape[0], *shape)
