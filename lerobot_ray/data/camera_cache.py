"""Which dataset a node's cached frames belong to: settings of a run's cache, and the name its frames are kept under.

The name changes with everything that could change a frame, so that a disk cache never gives frames of an earlier
recording in the same place.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lerobot_ray.core.layout import INFO_PATH
from lerobot_ray.data.cache import FrameCache, build_frame_cache
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.storage import LocalStorage


@dataclass(frozen=True)
class CacheSettings:
    """Where decoded frames are kept on every node, and how much of them."""

    kind: Literal["memory", "disk"]
    budget_bytes: int
    directory: Path | None = None
    eviction: Literal["keep", "lru"] = "keep"
    """"keep" for orders that shuffle the whole dataset, "lru" for those that move through it."""


def open_cache(settings: CacheSettings, metadata: DatasetMetadata) -> FrameCache | None:
    """This node's cache of the dataset's frames."""
    return build_frame_cache(
        settings.kind,
        frames_namespace(metadata),
        budget_bytes=settings.budget_bytes,
        directory=settings.directory,
        eviction=settings.eviction,
    )


def frames_namespace(metadata: DatasetMetadata) -> str:
    """A name for the dataset's frames as they are now: its source, its tables, and the files of a local folder."""
    digest = hashlib.sha256(json.dumps(dict(metadata.info), sort_keys=True, default=str).encode())
    episodes = metadata.episodes
    for array in (episodes.length, episodes.data_chunk, episodes.data_file):
        digest.update(array.tobytes())
    for key in metadata.video_keys:
        places = episodes.video[key]
        for array in (places.chunk, places.file, places.from_s):
            digest.update(array.tobytes())
    if isinstance(metadata.storage, LocalStorage):  # remote ones name a commit or verify what they fetch
        root = metadata.storage.root
        for path in [INFO_PATH, *metadata.storage.glob("data/*/*.parquet"), *metadata.storage.glob("videos/*/*/*.mp4")]:
            status = (root / path).stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"{metadata.storage.identity()} {digest.hexdigest()[:20]}"
