"""Whole tensors into one safetensors file, one at a time: the file may be larger than memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from lerobot_ray.checkpoint.saved import Saved

ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
}
"""By the names of the format; of all others, one."""


def write_whole(tensors: Mapping[str, Saved], path: Path) -> None:
    """The file that `safetensors` itself would write of them: the widest numbers first, then by name."""
    names = sorted(tensors, key=lambda name: (-ITEM_BYTES.get(tensors[name].dtype, 1), name))
    header, end = {}, 0
    for name in names:
        saved, begin = tensors[name], end
        end += math.prod(saved.shape) * ITEM_BYTES.get(saved.dtype, 1)
        header[name] = {"dtype": saved.dtype, "shape": list(saved.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            numbers = tensors[name].read().contiguous().reshape(-1).view(torch.uint8)
            numbers.numpy().tofile(file)
        if file.tell() != 8 + len(text) + end:
            raise OSError(f"{path} came out as {file.tell()} bytes in place of {8 + len(text) + end}")
