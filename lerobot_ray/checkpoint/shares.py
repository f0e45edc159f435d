"""Which rank writes which part of a checkpoint, so that each part is written once and all write about as much.

Every rank works it out from shapes alone, which all know: nothing is sent.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import torch
from torch.distributed.tensor import DTensor

from lerobot_ray.checkpoint.tensors import Part, local_part


def own_parts(
    tensors: Mapping[str, torch.Tensor], *, rank: int, world_size: int, of_first: Container[str] = ()
) -> dict[str, Part]:
    """What this rank writes of these tensors, the same ones in the same order on every rank. Nothing is copied.

    Of what several ranks have alike, whole copies or copies of a shard, the one with the least to write so far does it.
    `of_first` names those that ranks have each for themselves: the first rank's are the run's.
    """
    written: dict[int, list[int]] = {}
    parts = {}
    for name, tensor in tensors.items():
        place, copies = _place_among_copies(tensor, rank, world_size)
        if name in of_first:
            place, copies = rank, 1
        bytes_of = written.setdefault(copies, [0] * copies)
        chosen = bytes_of.index(min(bytes_of))
        bytes_of[chosen] += tensor.numel() * tensor.element_size()
        if chosen == place:
            part = local_part(tensor)
            if part.tensor.numel() or not tensor.numel():  # more ranks than rows: some have nothing
                parts[name] = part
    return parts


def _place_among_copies(tensor: torch.Tensor, rank: int, world_size: int) -> tuple[int, int]:
    """(which of the copies of its numbers this rank has, how many copies there are)."""
    if not isinstance(tensor, DTensor):
        return rank, world_size
    place, copies = 0, 1
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "every rank of a run is in its mesh"
    for axis, placement in enumerate(tensor.placements):
        if placement.is_replicate():
            size = tensor.device_mesh.size(axis)
            place, copies = place * size + coordinate[axis], copies * size
    return place, copies
