"""Run apart, on a cluster of its own: the node that plays an evaluation is lost halfway, and another one joins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lerobot_ray.config.env import ReachEnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.on_ray.evaluation import Evaluation, EvaluationPlan, portions
from lerobot_ray.on_ray.rollout_actor import PolicySource
from lerobot_ray.on_ray.rollout_pool import RolloutPool
from tests.on_ray.runs import wait_until

STORE = 100 << 20


def whole_episodes(policy: Path) -> EvaluationPlan:
    """Sixteen episodes of sixty steps, for two actors."""
    return EvaluationPlan(
        name="test",
        policy=PolicySource(folder=policy),
        env=ReachEnvConfig(obs_type="environment_state_agent_pos"),
        eval=EvalConfig(n_episodes=16, videos=0, use_async_envs=False),
        seed=7,
        num_actors=2,
        video_dir=policy.parent / "videos",
    )


def main(policy: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    lost = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    run = Evaluation(whole_episodes(policy))
    with RolloutPool(num_actors=2, resources={"CPU": 1}) as pool:
        for portion in portions(run.plan):
            pool.submit(portion)

        def are_done(enough: int) -> bool:
            for news in pool.poll(0.02):
                run.add(news)
            return run.num_done >= enough

        wait_until(lambda: are_done(3), within_s=180)
        assert not run.is_over
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=2, object_store_memory=STORE)
        wait_until(lambda: are_done(16), within_s=240)
    print("EPISODES " + json.dumps(run.info()["episodes"]))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
