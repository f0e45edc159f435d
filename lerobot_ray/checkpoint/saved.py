"""Tensors as they lie in files: whole in one, or in parts that several ranks have written.

Bytes are read when asked for. A folder of parts has a file of every rank:

    sharded/model/rank-00000-of-00002.safetensors
    sharded/model/rank-00001-of-00002.safetensors

The header of each says which box of which tensor every entry is: where it begins, under `DCP_SHARDING_INFO` and in
the words of torch's `HuggingFaceStorageReader`, so that `torch.distributed.checkpoint.load` opens such a folder too;
and the shapes of the whole tensors, so that a part that is not there is noticed. Any box can be put together from the
parts that lie in it, whoever wrote them: that is how a checkpoint of any number of ranks loads on any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lerobot_ray.checkpoint.tensors import Part, local_part, write_tensors
from lerobot_ray.core.errors import CheckpointError

TORCH_OFFSETS = "DCP_SHARDING_INFO"
WHOLE_SHAPES = "whole_shapes"


class Saved:
    """One tensor in files that are open."""

    def __init__(self, name: str, shape: tuple[int, ...], parts: Sequence[tuple[Any, tuple[int, ...]]]) -> None:
        """`parts`: (opened file, where its entry of this name begins in the whole tensor)."""
        self.name, self.shape, self._parts = name, shape, parts
        self.dtype: str = parts[0][0].get_slice(name).get_dtype()
        """In the words of safetensors: F32, BF16."""

    def read(self) -> torch.Tensor:
        """The whole tensor. It may be a view of the file."""
        return self.box((0,) * len(self.shape), self.shape)

    def box(self, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        """Numbers from `offsets` on, `sizes` of them along each axis. Only these are read; it may be a view."""
        found = None
        for file, begin in self._parts:
            entry = file.get_slice(self.name)
            shape = tuple(entry.get_shape())
            if begin == tuple(offsets) and shape == tuple(sizes):
                return file.get_tensor(self.name)
            low = [max(pair) for pair in zip(begin, offsets, strict=True)]
            high = [min(b + n, o + m) for b, n, o, m in zip(begin, shape, offsets, sizes, strict=True)]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            part = entry[_slices(low, high, begin)]
            if found is None:
                found = torch.empty(tuple(sizes), dtype=part.dtype)
            found[_slices(low, high, offsets)] = part
        if found is None:  # nothing lies in an empty box
            found = torch.empty(tuple(sizes), dtype=self._parts[0][0].get_tensor(self.name).dtype)
        return found

    @torch.no_grad()
    def fill(self, target: torch.Tensor) -> None:
        """Copy into `target`, or into this rank's part of it, of which alone the numbers are read."""
        part = local_part(target)
        if part.tensor.numel():
            part.tensor.copy_(self.box(part.offsets, part.tensor.shape))

    @torch.no_grad()
    def like(self, target: torch.Tensor) -> torch.Tensor:
        """A copy on the device of `target`, in parts as that is, with the file's dtype. Never a view of the file."""
        place = local_part(target)
        value = self.box(place.offsets, place.tensor.shape)
        copy = torch.empty_like(target.detach(), dtype=value.dtype)
        local_part(copy).tensor.copy_(value)
        return copy


def _slices(low: Sequence[int], high: Sequence[int], begin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(low, high, begin, strict=True))


def write_parts(parts: Mapping[str, Part], folder: Path, *, rank: int, world_size: int) -> Path:
    """One rank's file of a folder of parts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rank-{rank:05d}-of-{world_size:05d}.safetensors"
    header = {
        TORCH_OFFSETS: json.dumps({name: {"saved_offsets": part.offsets} for name, part in parts.items()}),
        WHOLE_SHAPES: json.dumps({name: part.whole_shape for name, part in parts.items()}),
    }
    write_tensors({name: part.tensor for name, part in parts.items()}, path, header)
    return path


@contextmanager
def open_saved(path: Path) -> Iterator[dict[str, Saved]]:
    """The tensors of a safetensors file or of a folder of parts. CheckpointError when they are not all there."""
    with ExitStack() as opened:
        if path.is_dir():
            yield _in_parts(path, opened)
        else:
            file = _open(path, opened)
            names = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            yield {name: Saved(name, shape, [(file, (0,) * len(shape))]) for name, shape in shapes.items()}


def _in_parts(folder: Path, opened: ExitStack) -> dict[str, Saved]:
    parts: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    paths = sorted(folder.glob("rank-*.safetensors"))
    if len(paths) != int(paths[0].stem.rpartition("-")[2] if paths else 1):
        raise CheckpointError(
            f"{folder} holds the files of {len(paths)} ranks, and more have written there. Resume from an earlier "
            "checkpoint."
        )
    for path in paths:
        file = _open(path, opened)
        header = file.metadata() or {}
        try:
            offsets, whole = json.loads(header[TORCH_OFFSETS]), json.loads(header[WHOLE_SHAPES])
            for name in file.keys():  # noqa: SIM118  not a mapping
                parts.setdefault(name, []).append((file, tuple(offsets[name]["saved_offsets"])))
                shapes[name] = tuple(whole[name])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} does not say which parts it holds ({error}). Resume from another."
            ) from error
    for name, found in parts.items():
        there = sum(math.prod(file.get_slice(name).get_shape()) for file, _ in found)
        if there != math.prod(shapes[name]):
            raise CheckpointError(
                f"{folder} holds {there} of the {math.prod(shapes[name])} numbers of {name}. Resume from an earlier "
                "checkpoint."
            )
    return {name: Saved(name, shapes[name], found) for name, found in sorted(parts.items())}


def _open(path: Path, opened: ExitStack) -> Any:
    try:
        return opened.enter_context(safe_open(path, framework="pt"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there, so the checkpoint is not whole. Resume from another.") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Resume from an earlier checkpoint.") from error
