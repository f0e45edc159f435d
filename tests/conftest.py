"""What every test may rely on: caches of its own, a quiet Ray, one shared cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before anything imports huggingface_hub, datasets or ray: they read these once. Worker processes inherit them.
_CACHES = tempfile.TemporaryDirectory(prefix="lerobot_ray_tests_", ignore_cleanup_errors=True)
for _name, _folder in {
    "LEROBOT_RAY_CACHE": "cache",
    "HF_HOME": "hf",
    "HF_LEROBOT_HOME": "hf/lerobot",
    "XDG_CACHE_HOME": "xdg",
    "TORCH_HOME": "torch",
}.items():
    os.environ[_name] = str(Path(_CACHES.name) / _folder)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["RAY_AUTH_MODE"] = "disabled"  # otherwise ray.init() writes a token into the user's home
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def ray_cluster():
    """One real local cluster for all tests that only need some workers. Tests that kill nodes start their own."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, object_store_memory=256 * 1024**2, log_to_driver=False
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory) -> Path:
    """A dataset of four episodes, one camera, h264. Read only."""
    from tests.make_dataset import make_dataset

    return make_dataset(tmp_path_factory.mktemp("toy") / "toy")
