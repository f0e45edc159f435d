"""Blocks to training batches: what LeRobot's loader would have collated, on the device that trains.

Camera frames arrive packed, half the bytes of RGB, and get their colours here. Arrays of a block may be read-only views
of shared memory; frames are converted or moved to the device straight from there, and a batch never holds such a view:
processing may write into all of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.types import PAD_SUFFIX, SAMPLE_WEIGHT, STREAM_INDEX, TASK, TASK_INDEX, VALID_ACTIONS, Batch
from lerobot_ray.data.cameras import COLOURS
from lerobot_ray.data.colour import yuv420_to_rgb
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.sample import COLOURS_SUFFIX, SampleSpec

ImageTransform = Callable[[torch.Tensor, int, str], torch.Tensor]
"""(frames (T, C, H, W) uint8, stream index, camera) -> frames; called once per sample and colour camera."""

Block = Mapping[str, Any]


def micro_batches(
    block: Block,
    spec: SampleSpec,
    *,
    micro_batch: int,
    device: torch.device | str = "cpu",
    image_transform: ImageTransform | None = None,
    uint8_frames: bool = False,
) -> Iterator[Batch]:
    """The block's samples in order, `micro_batch` at a time; the last batch holds what is left."""
    num_samples = len(block[TASK_INDEX])
    for start in range(0, num_samples, micro_batch):
        part = slice(start, start + micro_batch)
        yield to_batch(
            {name: values[part] for name, values in block.items()},
            spec,
            device=device,
            image_transform=image_transform,
            uint8_frames=uint8_frames,
        )


def to_batch(
    block: Block,
    spec: SampleSpec,
    *,
    device: torch.device | str = "cpu",
    image_transform: ImageTransform | None = None,
    uint8_frames: bool = False,
) -> Batch:
    """All samples of a block as one batch: LeRobot's keys, dtypes and shapes, plus `stream_index` if the block has it.

    Colour frames are float32 in [0, 1], or with `uint8_frames` uint8 as LeRobot's loader gives them (there, `image`
    features are float32 in any case).
    """
    device = torch.device(device)
    stream_index = block.get(STREAM_INDEX)
    batch: Batch = {}
    for feature in spec.specs:
        name = feature.name
        if feature.is_camera:
            frames = _colour_frames(block, name, device)
            if image_transform is not None and not feature.is_depth:
                assert stream_index is not None, "image transforms are keyed by stream index"
                frames = _transformed(frames, image_transform, stream_index, name, has_time=name in spec.offsets)
            frames = _finished(frames, feature, spec, uint8_frames=uint8_frames)
            # Whoever writes into a batch must not write into shared memory: that would end the process.
            batch[name] = frames.clone() if frames.data_ptr() == block[name].__array_interface__["data"][0] else frames
        elif feature.is_numeric:
            batch[name] = _to_device(torch.from_numpy(np.array(block[name])), device)
        else:
            batch[name] = list(block[name])
        if name in spec.offsets:
            batch[name + PAD_SUFFIX] = _to_device(torch.from_numpy(np.array(block[name + PAD_SUFFIX])), device)
    batch[TASK] = task_strings(block[TASK_INDEX], spec.metadata.tasks, spec.metadata.repo_id)
    if stream_index is not None:
        batch[STREAM_INDEX] = _to_device(torch.from_numpy(np.array(stream_index, dtype=np.int64)), device)
    for of_step in (VALID_ACTIONS, SAMPLE_WEIGHT):
        if of_step in block:
            batch[of_step] = _to_device(torch.from_numpy(np.array(block[of_step])), device)
    return batch


def task_strings(task_index: np.ndarray, tasks: Sequence[str], repo_id: str) -> list[str]:
    """The task of each sample."""
    numbers = np.asarray(task_index).reshape(-1).tolist()
    wrong = [number for number in numbers if not 0 <= number < len(tasks)]
    if wrong:
        raise DatasetError(
            f"{repo_id}: a frame has task_index {wrong[0]}, meta/tasks.parquet holds {len(tasks)} tasks. Fetch the "
            "dataset again, or write it anew."
        )
    return [tasks[number] for number in numbers]


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor over the memory of a C-contiguous array, without a copy. Do not write into one of a read-only array."""
    if array.flags.writeable or array.nbytes == 0:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    # torch has no read-only tensors and warns about read-only arrays, so hand it the same bytes under another name.
    memory = (ctypes.c_ubyte * array.nbytes).from_address(array.__array_interface__["data"][0])
    memory.owner = array  # type: ignore[attr-defined]  # keeps the mapping alive for as long as the tensor lives
    return torch.from_numpy(np.frombuffer(memoryview(memory), dtype=array.dtype).reshape(array.shape))


def _to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":  # from pinned memory the copy runs beside the kernels of the step before
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _colour_frames(block: Block, camera: str, device: torch.device) -> torch.Tensor:
    """Frames (B[, T], C, H, W) on the device: uint8 RGB, or float32 depth."""
    frames = _to_device(as_tensor(np.ascontiguousarray(block[camera])), device)
    colours = block.get(camera + COLOURS_SUFFIX)
    if colours is None:
        return frames
    distinct = np.unique(colours)
    if len(distinct) == 1:
        return _rgb(frames, int(distinct[0]))
    # Videos of differing colour coding in one batch: convert kind by kind.
    height, width = frames.shape[-2] * 2 // 3, frames.shape[-1]
    rgb = torch.empty((*frames.shape[:-2], 3, height, width), dtype=torch.uint8, device=device)
    for colour in distinct.tolist():
        here = torch.from_numpy(np.asarray(colours == colour)).to(device)
        rgb[here] = _rgb(frames[here], colour)
    return rgb


def _rgb(packed: torch.Tensor, colour: int) -> torch.Tensor:
    matrix, full_range = COLOURS[colour]
    return yuv420_to_rgb(packed, matrix=matrix, full_range=full_range)


def _transformed(
    frames: torch.Tensor, transform: ImageTransform, stream_index: np.ndarray, camera: str, *, has_time: bool
) -> torch.Tensor:
    windows = frames if has_time else frames.unsqueeze(1)
    # Contiguous and its own memory: a transform may expect the one and write into the other.
    changed = [
        transform(window.clone(memory_format=torch.contiguous_format), int(q), camera)
        for window, q in zip(windows, stream_index, strict=True)
    ]
    stacked = torch.stack(changed)
    return stacked if has_time else stacked.squeeze(1)


def _finished(frames: torch.Tensor, feature: FeatureSpec, spec: SampleSpec, *, uint8_frames: bool) -> torch.Tensor:
    # LeRobot drops the time axis of videos when the window is one frame long, but not of images.
    if feature.is_video and len(spec.offsets.get(feature.name, ())) == 1:
        frames = frames.squeeze(1)
    if frames.dtype != torch.uint8 or (uint8_frames and feature.is_video):
        return frames.contiguous()
    return frames.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
