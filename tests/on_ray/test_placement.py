"""Where things run on a real cluster of several nodes. A cluster of its own: run apart from the shared one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from ray._private.state import actors

sys.path.insert(0, {tests!r})
from lerobot_ray.on_ray.capacity import cpu_only_nodes_exist, gpu_nodes
from lerobot_ray.on_ray.placement import place_decoders
from tests.make_dataset import make_dataset
from tests.on_ray.runs import command, run_here

store = 150 << 20
cluster = Cluster(
    initialize_head=True, head_node_args=dict(num_cpus=0, include_dashboard=False, object_store_memory=store)
)
gpu = dict(num_cpus=4, num_gpus=2, resources=dict(accelerator=2))
shapes = dict(gpu1=gpu, gpu2=gpu, cpu=dict(num_cpus=2))
names = {{cluster.add_node(object_store_memory=store, **shape).node_id: name for name, shape in shapes.items()}}
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
names[ray.get_runtime_context().get_node_id()] = "head"
ids = {{name: node for node, name in names.items()}}


class Probe:
    def where(self):
        return ray.get_runtime_context().get_node_id()


# What a training process on gpu1 would ask for: three actors, where the CPU-only node has room for two.
placed = place_decoders(ids["gpu1"], gpu_nodes=gpu_nodes(), has_cpu_only=cpu_only_nodes_exist())
probes = []
for _ in range(3):
    probes.append(ray.remote(Probe).options(num_cpus=1, **placed.as_arguments()).remote())
    ray.get(probes[-1].where.remote())
probed = [names[node] for node in ray.get([probe.where.remote() for probe in probes])]
for probe in probes:
    ray.kill(probe)

seen, over = set(), threading.Event()


def look():
    while not over.is_set():
        for actor in actors().values():
            if actor["State"] == "ALIVE":
                seen.add((actor["ActorClassName"], names.get(actor["Address"]["NodeID"], "?")))
        time.sleep(0.1)


thread = threading.Thread(target=look)
thread.start()
# Ray Train starts NCCL for what it counts as GPUs, so the workers take another resource of the same nodes.
flags = ["--ray.num_workers=2", "--ray.use_gpu=false", '--ray.resources_per_worker={{"CPU": 1, "accelerator": 1}}']
flags += ["--num_workers=1", "--steps=30", "--save_freq=1000"]
code = run_here(command(make_dataset({root!r}), {output!r}, *flags))
over.set()
thread.join()
deadline = time.monotonic() + 60
while True:  # the training processes take a moment to end
    alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
    left = sorted(actor["ActorClassName"] for actor in alive if names.get(actor["Address"]["NodeID"]) != "head")
    if not left or time.monotonic() > deadline:
        break
    time.sleep(0.5)
print("RESULT " + json.dumps(dict(code=code, probed=probed, seen=sorted(seen), left=left)))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_decoders_on_cpu_nodes_workers_packed_head_free(tmp_path, request):
    """Two GPU nodes with room to spare, one CPU-only node, a head that offers nothing."""
    script = SCRIPT.format(tests=str(request.config.rootpath), root=str(tmp_path / "toy"), output=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    results = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stdout[-2000:] + done.stderr[-6000:]
    result = json.loads(results[0])
    assert result["code"] == 0, done.stderr[-4000:]
    assert result["probed"] == ["cpu", "cpu", "gpu1"], "CPU-only first, then the training process's own node"
    where = {}
    for actor, node in result["seen"]:
        where.setdefault(actor, set()).add(node)
    decoders = set().union(*(nodes for actor, nodes in where.items() if "DecodeBlocks" in actor))
    trainers = where["RayTrainWorker"]
    assert decoders == {"cpu"}
    assert len(trainers) == 1, "both workers on one GPU node"
    assert trainers < {"gpu1", "gpu2"}
    assert result["left"] == [], "nothing keeps a node busy when the run is over"
