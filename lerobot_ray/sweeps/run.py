"""A sweep from its plan to its end: what is refused, the cluster, how many trials at once, then the driver."""

from __future__ import annotations

import contextlib
import dataclasses

from lerobot_ray.config.train import TrainConfig
from lerobot_ray.on_ray.cluster import (
    Workers,
    before_ray_is_imported,
    connected,
    is_connected_or_remote,
    may_grow,
    workers_here,
    workers_on_cluster,
)
from lerobot_ray.on_ray.evaluated import evaluates
from lerobot_ray.on_ray.evaluation import cpus_of_rollouts
from lerobot_ray.on_ray.lasting_actors import keep_lasting_actors_here
from lerobot_ray.on_ray.run_folder import claimed
from lerobot_ray.on_ray.run_samples import open_dataset
from lerobot_ray.on_ray.trainer import with_absolute_paths
from lerobot_ray.sweeps.driver import Driver
from lerobot_ray.sweeps.plan import SweepPlan, earlier_events, needs_of, nodes_here
from lerobot_ray.sweeps.push_best import check_push
from lerobot_ray.sweeps.queue import TrialQueue
from lerobot_ray.sweeps.room import concurrency, decoders_each
from lerobot_ray.sweeps.trial_run import TrialRuns, try_first


def run_sweep(plan: SweepPlan) -> tuple[TrialQueue, int]:
    """Run it, or the rest of it; the queue with all trials, and the signal that ended it or 0.

    LerobotRayError for what is refused, before any trial.
    """
    before_ray_is_imported(plan.config.ray)  # searchers and schedulers import it
    queue = TrialQueue(plan, earlier_events(plan))
    if plan.push_best:
        check_push(plan)
    if not queue.has_more:  # a finished sweep, started again: only its page and table are made anew
        return queue, 0
    config = with_absolute_paths(dataclasses.replace(plan.config, output_dir=plan.folder))
    metadata = open_dataset(config)
    device = config.policy.device if config.policy else None
    is_there = is_connected_or_remote(config.ray)
    workers = None if is_there else workers_here(config.ray, device)
    at_once = 1
    if workers is not None:
        at_once = _at_once(plan, config, workers, nodes_here(workers.use_gpu), is_here=True)
        try_first(plan, metadata, workers)
    with claimed(plan.folder), contextlib.ExitStack() as stack:
        together = None if workers is None else dataclasses.replace(workers, count=workers.count * at_once)
        rollout_cpus = at_once * cpus_of_rollouts(config.eval) if evaluates(config) else 0.0
        stack.enter_context(connected(config.ray, together, rollout_cpus=rollout_cpus))
        nodes = _nodes()
        if workers is None:
            workers = workers_on_cluster(config.ray, device)
            at_once = _at_once(plan, config, workers, nodes, is_here=False)
            try_first(plan, metadata, workers)
            keep_lasting_actors_here()
        workers = dataclasses.replace(workers, fewest=workers.count)
        at_once = min(at_once, _most_useful(queue))
        decoders = decoders_each(needs_of(config, workers), nodes, at_once)
        runs = TrialRuns(plan, config, metadata, workers, at_once=at_once, decoders=decoders)
        driver = Driver(plan, queue, runs)
        driver.run()
    return queue, driver.received[0] if driver.received else 0


def _at_once(
    plan: SweepPlan, config: TrainConfig, workers: Workers, nodes: list[dict[str, float]], *, is_here: bool
) -> int:
    return concurrency(
        needs_of(config, workers),
        nodes,
        asked=plan.sweep.max_concurrent,
        is_here=is_here,
        may_grow=False if is_here else may_grow(),
    )


def _most_useful(queue: TrialQueue) -> int:
    """No more slots than there are trials left."""
    left = sum(not trial.has_ended for trial in queue.state.trials.values())
    left += ((queue.size or 10**6) - queue.sets_begun) * queue.plan.seeds
    return max(1, left)


def _nodes() -> list[dict[str, float]]:
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
