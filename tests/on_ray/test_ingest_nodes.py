"""A node of a real cluster dies under the decode actors. A cluster of its own: run apart from the shared one."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import sys
import numpy as np
import ray
from ray.cluster_utils import Cluster

sys.path.insert(0, {tests!r})
from tests.make_dataset import make_dataset
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.sample import BlockReader, SampleSpec
from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions

store = 150 << 20
cluster = Cluster(
    initialize_head=True,
    head_node_args=dict(num_cpus=0, include_dashboard=False, object_store_memory=store),
)
nodes = [cluster.add_node(num_cpus=1, object_store_memory=store) for _ in range(2)]
ray.init(address=cluster.address, logging_level="ERROR")
metadata = open_metadata("test/nodes", root=make_dataset({root!r}, files="many"))
selection = select_episodes(metadata.episodes)
spec = SampleSpec(metadata=metadata, selection=selection, offsets=dict(action=[0, 1]))
order = build_order("frames", num_samples=selection.num_samples, seed=1, episode_lengths=np.diff(selection.starts))
plan = StreamPlan(order=order, global_batch=8, micro_batch=8, world_size=1, rank=0, start=0, micro_batches_per_block=2)
reader = BlockReader(spec)
with BlockStream(spec, plan, num_blocks=60, options=IngestOptions(num_decoders=2, buffered_blocks=1)) as stream:
    for number, block in enumerate(stream):
        expected = reader.read(plan.block(number).sample_ids.ravel())
        assert all(np.array_equal(block.columns[k], v) for k, v in expected.items() if isinstance(v, np.ndarray))
        if number == 5:
            cluster.remove_node(nodes[0], allow_graceful=False)
        if number == 30:
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=store))
            cluster.remove_node(nodes[1], allow_graceful=False)
assert number == 59
ray.shutdown()
cluster.shutdown()
print("unbroken")
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_lost_node_changes_nothing(tmp_path, request):
    """Two CPU-only nodes decode for a head without CPUs; both are killed in turn, a third joins."""
    script = SCRIPT.format(tests=str(request.config.rootpath), root=str(tmp_path / "ds"))
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=240, check=False
    )
    assert run.stdout.strip().endswith("unbroken"), run.stdout[-2000:] + run.stderr[-6000:]
