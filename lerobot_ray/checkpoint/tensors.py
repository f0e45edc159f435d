"""Tensors that may be in parts on several ranks: made whole, filled, copied to host memory, written to a file.

A tensor in parts is torch's DTensor. `whole` gathers it, `put` fills it from a whole one; both take one tensor at a
time, so that no device ever holds more of a model than its part and the largest tensor. `local_part` is what a rank has
of it, for which nothing is sent.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

# Without it (torch before 2.7) the parts are sent by the first rank: slower, and every rank must still call it.
_CUT_LOCALLY: dict[str, Any] = (
    {"src_data_rank": None} if "src_data_rank" in inspect.signature(distribute_tensor).parameters else {}
)


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file that whoever may read the folder may read: the library's own are for their owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata)
    path.chmod(mode)


@dataclass(frozen=True)
class Part:
    """A box of a tensor: all of it, or what one rank has."""

    tensor: torch.Tensor
    offsets: tuple[int, ...]
    """Where the box begins in the whole tensor."""
    whole_shape: tuple[int, ...]


def local_part(tensor: torch.Tensor) -> Part:
    """What this rank has of a tensor, detached and not copied."""
    tensor = tensor.detach()
    shape = tuple(tensor.shape)
    if not isinstance(tensor, DTensor):
        return Part(tensor, (0,) * len(shape), shape)
    (chunk,) = tensor.__create_chunk_list__()  # the protocol between DTensor and torch.distributed.checkpoint
    return Part(tensor.to_local(), tuple(chunk.offsets), shape)


def is_in_parts(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Collective under sharding: every rank calls this. The tensor with all its parts, detached."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor
    mesh_device = tensor.device_mesh.device_type
    if tensor.device.type != mesh_device:  # parts kept in host memory: the mesh can only talk about its own device
        return tensor.to(mesh_device).full_tensor()  # type: ignore[attr-defined]
    return tensor.full_tensor()


@torch.no_grad()
def put(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole `value`, the same on every rank, into `target` or into this rank's part of it."""
    if not isinstance(target, DTensor):
        target.copy_(value)
        return
    mesh = target.device_mesh
    cut = distribute_tensor(value.to(mesh.device_type), mesh, target.placements, **_CUT_LOCALLY)
    target.to_local().copy_(cut.to_local())


class HostCopies:
    """Copies tensors to host memory, one call each; the copies are only there after `arrived`.

    Collective under sharding: every rank makes the same calls. Only a rank that `keeps` gets copies. Memory is kept and
    used again after `begin`: fresh memory costs the system several times what the copy does.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self._on_device = False
        self._memory: dict[tuple[int, Any], torch.Tensor] = {}
        self._calls = 0

    def begin(self) -> None:
        """Of what was copied before nothing is needed any more; the next calls are the same ones."""
        self._calls = 0

    def of(self, tensors: Mapping[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
        """A copy of each, whole; nothing on the other ranks."""
        copies = {}
        for name, tensor in tensors.items():
            gathered = whole(tensor)
            if self.keeps:
                copies[name] = self._copy(gathered, (self._calls, name))
        self._calls += 1
        return copies

    def of_parts(self, parts: Mapping[Any, Part]) -> dict[Any, Part]:
        """A copy of each; nothing is sent between ranks."""
        copies = {
            name: dataclasses.replace(part, tensor=self._copy(part.tensor, (self._calls, name)))
            for name, part in parts.items()
        }
        self._calls += 1
        return copies

    def arrived(self) -> None:
        """Wait until the copies hold what the tensors held."""
        if self._on_device:
            torch.cuda.synchronize()

    def _copy(self, tensor: torch.Tensor, place: tuple[int, Any]) -> torch.Tensor:
        memory = self._memory.get(place)
        if memory is None or memory.shape != tensor.shape or memory.dtype != tensor.dtype:
            # page-locked for a GPU: several times faster
            memory = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._memory[place] = memory
        self._on_device |= tensor.is_cuda
        return memory.copy_(tensor, non_blocking=tensor.is_cuda)
