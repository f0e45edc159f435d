"""A dataset one item at a time, as LeRobot gives it: for notebooks, statistics and as the reference of the tests.

Training does not come this way; it reads many samples at once (`sample`). Both read the same tables and files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot_ray.core.types import PAD_SUFFIX, TASK, TASK_INDEX
from lerobot_ray.data.batch import task_strings
from lerobot_ray.data.episodes import Selection, select_episodes
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.metadata import check_files, open_metadata
from lerobot_ray.data.sample import BlockReader, SampleSpec
from lerobot_ray.data.windows import offsets_from_timestamps

Item = dict[str, Any]


class Dataset:
    """`dataset[i]` is frame i of the selected episodes: tensors under LeRobot's keys, and `task` as str.

    `root` is a folder or a URL; without it `repo_id` is looked up among local datasets, then on the Hub. `episodes`
    selects episode numbers; frames stay in storage order whatever the order of the list. `delta_timestamps` gives
    features a time axis: seconds relative to frame i; at the ends of the episode frames repeat and `<key>_is_pad` is
    true.
    `image_transforms` is applied to the frames of every camera but depth. Video frames are float32 in [0, 1], or uint8
    with `return_uint8`. `video_backend` is accepted for compatibility; PyAV decodes in any case.

    Safe in DataLoader workers: every process opens its own files.
    """

    def __init__(
        self,
        repo_id: str = "",
        *,
        root: str | Path | None = None,
        episodes: Sequence[int] | None = None,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        image_transforms: Callable[[torch.Tensor], torch.Tensor] | None = None,
        revision: str | None = None,
        return_uint8: bool = False,
        tolerance_s: float = 1e-4,
        depth_output_unit: str = "mm",
        video_backend: str | None = None,
    ) -> None:
        self.meta = open_metadata(repo_id, root=root, revision=revision)
        self.image_transforms = image_transforms
        self.return_uint8 = return_uint8
        self.video_backend = video_backend
        selection = select_episodes(self.meta.episodes, episodes=episodes)
        check_files(self.meta, selection.episodes)
        offsets = offsets_from_timestamps(delta_timestamps or {}, self.meta.fps, tolerance_s)
        self._spec = SampleSpec(
            metadata=self.meta,
            selection=selection,
            offsets={key: frames.tolist() for key, frames in offsets.items()},
            transport="rgb",
            tolerance_s=tolerance_s,
            depth_output_unit=depth_output_unit,
        )
        self._reader = BlockReader(self._spec)
        self._process = os.getpid()

    @property
    def repo_id(self) -> str:
        return self.meta.repo_id

    @property
    def features(self) -> dict[str, FeatureSpec]:
        return self.meta.features

    @property
    def fps(self) -> int:
        return self.meta.fps

    @property
    def episodes(self) -> list[int]:
        """The selected episode numbers, ascending."""
        return self._selection.episodes.tolist()

    @property
    def num_episodes(self) -> int:
        return len(self._selection.episodes)

    @property
    def num_frames(self) -> int:
        return self._selection.num_samples

    @property
    def _selection(self) -> Selection:
        return self._spec.selection

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> Item:
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.repo_id} has {len(self)} frames selected; there is no item {number}")
        block = self._own_reader().read(np.array([number % len(self)]))
        item: Item = {}
        for spec in self._spec.specs:
            value = block[spec.name][0]
            if spec.is_camera:
                item[spec.name] = self._frames(value, spec)
            else:
                item[spec.name] = torch.from_numpy(np.asarray(value)) if spec.is_numeric else value
            if spec.name in self._spec.offsets:
                item[spec.name + PAD_SUFFIX] = torch.from_numpy(block[spec.name + PAD_SUFFIX][0])
        (item[TASK],) = task_strings(np.asarray(block[TASK_INDEX]), self.meta.tasks, self.repo_id)
        return item

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        metadata = self.meta
        lines = [
            f"{metadata.repo_id}: {len(self)} frames in {self.num_episodes} of {metadata.total_episodes} episodes",
            f"{metadata.fps} fps, robot {metadata.robot_type or 'unknown'}, {len(metadata.tasks)} tasks",
        ]
        lines += [f"{name} {spec.dtype} {list(spec.shape)}" for name, spec in metadata.features.items()]
        return "Dataset(" + "\n    ".join(lines) + ")"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def _own_reader(self) -> BlockReader:
        """This process's reader: a forked one would share file positions with its parent."""
        if self._reader is None or self._process != os.getpid():
            self._reader, self._process = BlockReader(self._spec), os.getpid()
        return self._reader

    def _frames(self, frames: np.ndarray, spec: FeatureSpec) -> torch.Tensor:
        tensor = torch.from_numpy(frames)
        # As in LeRobot: the time axis of videos, unlike that of images, is dropped when the window is one frame long.
        if spec.is_video and len(self._spec.offsets.get(spec.name, ())) == 1:
            tensor = tensor.squeeze(0)
        if spec.is_depth:
            return tensor
        if not (self.return_uint8 and spec.is_video):
            tensor = tensor.to(torch.float32) / 255
        return tensor if self.image_transforms is None else self.image_transforms(tensor)
