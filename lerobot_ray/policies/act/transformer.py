"""The transformer of ACT: DETR's layers (Carion et al., 2020), positions added in every attention.

Tensors are sequence-first: T tokens, B batch, D width. That is also the order in which LeRobot draws its dropout masks,
so on a CPU one seed gives both the same masks. Attention is torch's fused scaled-dot-product attention.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class Attention(nn.MultiheadAttention):
    """Multi-head attention with torch's parameters and initial values, computed by the fused kernel.

    It stays a `MultiheadAttention` in signature and type, so that adapter libraries recognise it.
    """

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Query (T, B, D), key and value (S, B, D), mask (B, S) true where a key is to be ignored."""
        width = self.embed_dim
        if query is key:
            weight_qk, weight_v = self.in_proj_weight.split([2 * width, width])
            bias_qk, bias_v = self.in_proj_bias.split([2 * width, width])
            q, k = F.linear(query, weight_qk, bias_qk).chunk(2, dim=-1)
        else:
            weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
            bias_q, bias_k, bias_v = self.in_proj_bias.chunk(3)
            q, k = F.linear(query, weight_q, bias_q), F.linear(key, weight_k, bias_k)
        v = F.linear(value, weight_v, bias_v)
        attended = F.scaled_dot_product_attention(
            self._heads(q),
            self._heads(k),
            self._heads(v),
            attn_mask=None if key_padding_mask is None else ~key_padding_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2)), None

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3)  # (B, heads, T, D / heads)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with a shortcut and a norm after it (before it with `pre_norm`)."""

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float, activation: str, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout=dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, positions: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Tokens (T, B, D) with positions (T, 1, D); mask (B, T) true at padding."""
        shortcut, x = x, self.norm1(x) if self.pre_norm else x
        query = x + positions
        x = shortcut + self.dropout1(self.self_attn(query, query, x, key_padding_mask=key_padding_mask)[0])
        x = x if self.pre_norm else self.norm1(x)
        shortcut, x = x, self.norm2(x) if self.pre_norm else x
        x = shortcut + self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return x if self.pre_norm else self.norm2(x)


class DecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the encoder's tokens, feed-forward."""

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float, activation: str, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout=dropout)
        self.multihead_attn = Attention(width, heads, dropout=dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(3))
        self.activation = ACTIVATIONS[activation]
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, positions: Tensor, memory: Tensor, memory_keys: Tensor) -> Tensor:
        """Queries (T, B, D), positions (T, 1, D); the encoder's tokens (S, B, D) without and with their positions."""
        shortcut, x = x, self.norm1(x) if self.pre_norm else x
        query = x + positions
        x = shortcut + self.dropout1(self.self_attn(query, query, x)[0])
        x = x if self.pre_norm else self.norm1(x)
        shortcut, x = x, self.norm2(x) if self.pre_norm else x
        x = shortcut + self.dropout2(self.multihead_attn(x + positions, memory_keys, memory)[0])
        x = x if self.pre_norm else self.norm2(x)
        shortcut, x = x, self.norm3(x) if self.pre_norm else x
        x = shortcut + self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return x if self.pre_norm else self.norm3(x)


class Encoder(nn.Module):
    """Encoder layers, with a final norm where the layers begin with theirs."""

    def __init__(self, num_layers: int, *, width: int, pre_norm: bool, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width=width, pre_norm=pre_norm, **layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width) if pre_norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, positions, key_padding_mask)
        return self.norm(x)


class Decoder(nn.Module):
    """Decoder layers and a final norm."""

    def __init__(self, num_layers: int, *, width: int, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width=width, **layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, memory: Tensor, memory_positions: Tensor) -> Tensor:
        memory_keys = memory + memory_positions
        for layer in self.layers:
            x = layer(x, positions, memory, memory_keys)
        return self.norm(x)


def sequence_positions(length: int, width: int) -> Tensor:
    """Sinusoidal positions (length, width): sines at even places, cosines at odd ones."""
    place = torch.arange(length, dtype=torch.float64)[:, None]
    angle = place / 10000 ** (2 * (torch.arange(width, dtype=torch.float64) // 2) / width)
    return torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos()).float()


def image_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (height·width, dim) of pixels, row by row: half of each for the row, half for the column."""
    if torch.compiler.is_compiling():  # part of the graph, where a cache would only be in the way
        return _image_positions(height, width, dim, device)
    return _cached_image_positions(height, width, dim, device)


@functools.lru_cache(maxsize=32)
def _cached_image_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # kept beyond this call, so a tensor usable in training too
        return _image_positions(height, width, dim, device)


def _image_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    half = dim // 2
    index = torch.arange(half, device=device)
    period = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor").float() / half)

    def axis(length: int) -> Tensor:  # (length, half)
        place = torch.arange(1, length + 1, device=device).float() / (length + 1e-6) * (2 * math.pi)
        angle = place[:, None] / period
        return torch.where(index % 2 == 0, angle.sin(), angle.cos())

    rows = axis(height)[:, None, :].expand(height, width, half)
    columns = axis(width)[None, :, :].expand(height, width, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
