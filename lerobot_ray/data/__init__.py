"""Datasets in LeRobot's v3.0 format, as samples in a reproducible order.

Reading order: `storage` (where the files are), `metadata` (what they say), `windows` (which rows make a sample),
`frames` (tabular columns), `video` (camera frames), `sample` (both together, as numpy blocks), `batch` (blocks as torch
batches). `dataset` is the same thing one item at a time and the reference the rest is tested against. Which samples
come when is `order`, `episodes` and `plan`; writing a dataset is `writer`, checking one `validate`, counting its
statistics `recount`, showing it `preview`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerobot_ray.data.dataset import Dataset

__all__ = ["Dataset"]


def __getattr__(name: str) -> Any:  # on demand: metadata and plans are read by processes that never import torch
    if name == "Dataset":
        from lerobot_ray.data.dataset import Dataset

        return Dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
