"""Image transforms for training, drawn from a sample's place in the stream.

Which transforms a camera's window gets, and how strong, is a pure function of (seed, stream index, camera): a retried
task, a resumed run or another number of workers sees the same pixels. All frames of one window share a draw. Names,
arguments, ranges and chances are LeRobot's; `augment_colour`, `augment_camera` and `augment_place` hold the types.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

import torch

from lerobot_ray.core.errors import ConfigError, nearest
from lerobot_ray.data import augment_camera, augment_colour, augment_place
from lerobot_ray.data.augment_arguments import Parameters, Transform
from lerobot_ray.data.draws import Draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """Nothing."""

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> None:
        return None

    def apply(self, frames: torch.Tensor) -> torch.Tensor:
        return frames


TYPES: dict[str, type] = {
    name: kind
    for module in (augment_colour, augment_camera, augment_place)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__
} | {"Identity": Identity}
"""Transform types by the name they have in a config file."""


class ImageTransforms:
    """Draws a few transforms for each window of each camera and applies them."""

    def __init__(self, config: Any, *, seed: int = 0) -> None:
        """`config` has `enable`, `max_num_transforms`, `random_order` and `tfs`: name -> {weight, type, kwargs}.
        A mapping will do. Entries with weight 0 or less are off."""
        self.seed = seed
        table = _field(config, "tfs") if _field(config, "enable") else {}
        entries = {name: entry for name, entry in table.items() if _field(entry, "weight") > 0}
        self.names = list(entries)
        self._weights = [float(_field(entry, "weight")) for entry in entries.values()]
        self._transforms = [build_transform(name, entry) for name, entry in entries.items()]
        self._count = min(int(_field(config, "max_num_transforms")), len(entries))
        self._random_order = bool(_field(config, "random_order"))

    def __call__(self, frames: torch.Tensor, stream_index: int, camera: str) -> torch.Tensor:
        """uint8 (T, C, H, W) of one window of one camera -> a transformed copy, or the same tensor if nothing was drawn
        that changes it. Colour cameras only: the caller leaves depth out."""
        if frames.dtype != torch.uint8 or frames.shape[-3] not in (1, 3):
            raise ConfigError(
                f"{camera}: image transforms take uint8 frames with 1 or 3 channels, these are {frames.dtype} with "
                f"{frames.shape[-3]}. Turn dataset.image_transforms off, or drop the camera's other channels."
            )
        for name, transform, parameters in self.draw(stream_index, camera, tuple(frames.shape[-3:])):
            if parameters is not None:
                changed = transform.apply(frames, **parameters)
                if changed.shape != frames.shape:
                    raise ConfigError(
                        f"dataset.image_transforms.tfs.{name}: {type(transform).__name__} turns {_size(frames)} frames "
                        f"of {camera} into {_size(changed)}, and all samples of a batch need one size. "
                        f"Give it the size of the frames, or use another transform."
                    )
                frames = changed
        return frames

    def draw(
        self, stream_index: int, camera: str, shape_chw: tuple[int, ...]
    ) -> list[tuple[str, Transform, Parameters | None]]:
        """(name, transform, parameters) in the order of application. None: drawn, but its own chance said no."""
        draws = Draws(self.seed, stream_index, camera)
        chosen = draws.subset(self._weights, self._count)
        channels, height, width = shape_chw
        return [
            (self.names[i], self._transforms[i], self._transforms[i].draw(draws, channels, height, width))
            for i in (chosen if self._random_order else sorted(chosen))
        ]


def build_transform(name: str, entry: Any) -> Transform:
    """The transform of one table entry {type, kwargs}; `name` is for errors."""
    kind, arguments = _field(entry, "type"), dict(_field(entry, "kwargs") or {})
    where = f"dataset.image_transforms.tfs.{name}"
    if kind not in TYPES:
        return _from_torchvision(where, kind, arguments)
    known = [field.name for field in dataclasses.fields(TYPES[kind])]
    for argument in arguments:
        if argument not in known:
            near = nearest(argument, known)
            raise ConfigError(
                f"{where}: {kind} has no argument {argument!r}, it takes {', '.join(known) or 'none'}."
                + (f" Did you mean {near!r}?" if near else "")
            )
    try:
        return TYPES[kind](**arguments)
    except TypeError as error:  # a missing argument: the dataclass names it
        raise ConfigError(f"{where}: {kind}: {str(error).split('() ')[-1]}.") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


@dataclasses.dataclass(frozen=True)
class TorchvisionTransform:
    """Any other class of torchvision v2, with torch's global generator set from the draw and put back afterwards."""

    kind: str
    arguments: Mapping[str, Any]
    transform: Any

    def __reduce__(self):
        return _from_torchvision, ("", self.kind, dict(self.arguments))

    def draw(self, draws: Draws, channels: int, height: int, width: int) -> Parameters:
        return {"key": draws.key()}

    def apply(self, frames: torch.Tensor, key: int) -> torch.Tensor:
        devices = [frames.device] if frames.device.type == "cuda" else []
        with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=devices):
            torch.manual_seed(key)
            return self.transform(frames)


_GLOBAL_GENERATOR = threading.Lock()


def _from_torchvision(where: str, kind: str, arguments: dict[str, Any]) -> TorchvisionTransform:
    try:
        from torchvision.transforms import v2
    except ImportError:
        near = nearest(kind, TYPES)
        raise ConfigError(
            f"{where}: there is no image transform {kind!r}."
            + (f" Did you mean {near}?" if near else "")
            + f" Known are {', '.join(sorted(TYPES))}; other classes of torchvision.transforms.v2 need torchvision "
            f"installed."
        ) from None
    found = getattr(v2, kind, None)
    if not (isinstance(found, type) and issubclass(found, v2.Transform)):
        near = nearest(kind, {*TYPES, *v2.__dict__})
        raise ConfigError(
            f"{where}: there is no image transform {kind!r}, neither here nor in torchvision.transforms.v2."
            + (f" Did you mean {near}?" if near else "")
        )
    try:
        return TorchvisionTransform(kind, arguments, found(**arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: torchvision's {kind}: {error}.") from error


def _field(entry: Any, name: str) -> Any:
    """A field of a dataclass or a mapping, LeRobot's default if it is left out."""
    defaults = {"weight": 1.0, "type": "Identity", "kwargs": {}, "enable": False}
    defaults |= {"max_num_transforms": 3, "random_order": False, "tfs": {}}
    if isinstance(entry, Mapping):
        return entry.get(name, defaults[name])
    return getattr(entry, name, defaults[name])


def _size(frames: torch.Tensor) -> str:
    return "x".join(map(str, frames.shape[-3:]))
