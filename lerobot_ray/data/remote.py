"""Datasets that are elsewhere: `HubStorage` (a repository on the Hub) and `ObjectStorage` (a URL).

Reading order: `remote_files` (what they share), `file_cache` (this node's copies), `lookahead`, `retry`, then
`hub_revision` and `hub_storage`, `object_storage`.
"""

from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.hub_storage import HubStorage
from lerobot_ray.data.object_storage import ObjectStorage

__all__ = ["FileCache", "HubStorage", "ObjectStorage"]
