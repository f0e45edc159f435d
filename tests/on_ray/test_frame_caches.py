"""Memory that killed decode actors held for decoded frames is given back; what another process uses is not."""

import numpy as np
import pytest

from lerobot_ray.data.cache import build_frame_cache
from lerobot_ray.data.cache_space import space_root
from lerobot_ray.data.camera_cache import CacheSettings
from lerobot_ray.on_ray import frame_caches
from lerobot_ray.on_ray.frame_caches import release_frame_caches

pytestmark = pytest.mark.ray
BUDGET_BYTES = 1 << 20


class Keeper:
    """Holds a cache with frames in it, as a decode actor does."""

    def __init__(self, namespace, directory):
        self.cache = build_frame_cache("memory", namespace, budget_bytes=BUDGET_BYTES, directory=directory)
        self.cache.put("front", np.arange(3), np.ones((3, 6, 4), np.uint8))

    def ready(self):
        return True


def test_what_a_killed_actor_kept_is_given_back(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_caches, "ACTORS_DIE_S", 10.0)
    ray = ray_cluster
    dying, living = (ray.remote(num_cpus=0)(Keeper).remote(name, tmp_path) for name in ("dying", "living"))
    ray.get([dying.ready.remote(), living.ready.remote()])
    root = space_root("memory", tmp_path)
    names = {path.parent: path.read_text() for path in root.glob("*/name")}
    assert sorted(names.values()) == ["dying", "living"]

    ray.kill(dying)
    release_frame_caches(CacheSettings("memory", BUDGET_BYTES, tmp_path))
    assert [path.read_text() for path in root.glob("*/name")] == ["living"]

    ray.kill(living)
    release_frame_caches(CacheSettings("memory", BUDGET_BYTES, tmp_path))
    assert not [path for path in root.iterdir() if path.is_dir()]


def test_a_disk_cache_stays(ray_cluster, tmp_path):
    release_frame_caches(None)
    cache = build_frame_cache("disk", "kept", budget_bytes=BUDGET_BYTES, directory=tmp_path)
    cache.put("front", np.arange(3), np.ones((3, 6, 4), np.uint8))
    cache.close()
    release_frame_caches(CacheSettings("disk", BUDGET_BYTES, tmp_path))
    assert list(space_root("disk", tmp_path).glob("*/name"))
