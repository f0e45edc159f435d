"""Run apart: the node that plays an evaluation is lost in the middle, and another one joins. Prints the episodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from lerobot_ray.config.env import ReachEnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.on_ray.evaluation import Evaluation, EvaluationPlan, portions
from lerobot_ray.on_ray.rollout_actor import PolicySource
from lerobot_ray.on_ray.rollout_pool import RolloutPool
from tests.on_ray.runs import wait_until

STORE = 100 << 20


def main(policy: Path, *, loses_node: bool) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    )
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=STORE)]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    plan = EvaluationPlan(
        name="test",
        policy=PolicySource(folder=policy),
        env=ReachEnvConfig(obs_type="environment_state_agent_pos"),
        eval=EvalConfig(n_episodes=16, videos=0, use_async_envs=False),
        seed=7,
        num_actors=2,
        video_dir=policy.parent / "videos",
    )
    run = Evaluation(plan)
    with RolloutPool(num_actors=2, resources={"CPU": 1}) as pool:
        for portion in portions(plan):
            pool.submit(portion)

        def look(enough: int) -> bool:
            for news in pool.poll(0.05):
                run.add(news)
            return run.num_done >= enough

        if loses_node:
            wait_until(lambda: look(3), within_s=120)
            assert not run.is_over
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=2, object_store_memory=STORE))
        wait_until(lambda: look(16), within_s=120)
    print("EPISODES " + json.dumps(run.info()["episodes"]))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), loses_node=sys.argv[2] == "loses")
