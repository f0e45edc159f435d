from __future__ import annotations

import pytest

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.jobs.room import check_room

HEAD, CPU_NODE, GPU_NODE = {"CPU": 0.0}, {"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}


def check(nodes, device=None, **settings):
    check_room(RayConfig(**settings), device, nodes, where="the cluster at x")


def test_what_fits():
    check([HEAD, CPU_NODE], num_workers=8)
    check([HEAD, GPU_NODE, GPU_NODE])
    check([HEAD, GPU_NODE], device="cpu", num_workers=16)
    check([CPU_NODE], num_workers=20, min_workers=2)


@pytest.mark.parametrize(
    ("nodes", "settings", "said"),
    [
        ([HEAD], {}, "room for 0"),
        ([CPU_NODE], {"num_workers": 9}, "holds 8 CPU on 1 node, room for 8, and does not grow"),
        ([CPU_NODE, CPU_NODE], {"resources_per_worker": {"CPU": 9}}, "holds 16 CPU on 2 nodes, room for 0"),
        ([GPU_NODE], {"num_workers": 5, "use_gpu": True}, "holds 16 CPU, 4 GPU"),
        ([CPU_NODE], {"use_gpu": True}, "has no GPU"),
        ([], {}, "no node that is alive"),
    ],
)
def test_what_never_can(nodes, settings, said):
    with pytest.raises(ConfigError, match=said):
        check(nodes, **settings)
