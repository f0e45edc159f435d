"""What rollouts cost: episodes per second over 1, 2, 4 actors, and training throughput with evaluation on and off.

    python benchmarks/evaluation.py --folder build/evaluation [--actors 1,2,4] [--episodes 32] [--steps 60] [--runs 2]

The policy is an untrained ACT on reach with a 64x64 camera, so every episode takes its 60 steps. Times of episodes are
from the first portion handed out to the last result, actors starting included; `warm` leaves their start out. Training
throughput is the median over log windows after the first checkpoint is due, when rollouts are under way. On and off
take turns, `--runs` times each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--actors", default="1,2,4")
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--runs", type=int, default=2)
    args = parser.parse_args()
    from lerobot_ray.demo import record, save_untrained, train_flags

    root, policy = args.folder / "dataset", args.folder / "untrained"
    if not root.exists():
        record(root, episodes=30, image_hw=(64, 64))
    flags = train_flags(root, args.folder / "run", steps=args.steps, pixels=64)
    save_untrained(flags, policy)
    report = {"machine": machine(), "command": sys.argv}
    report["actors"] = {count: actors(policy, count, args.episodes) for count in map(int, args.actors.split(","))}
    print(json.dumps(report["actors"], indent=1), flush=True)
    rates: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(args.runs):
        for name, frequency in (("off", 0), ("on", args.steps // 3)):
            rates[name].append(training(flags, args.folder / "run", frequency, first=args.steps // 3))
            print(name, rates[name][-1], flush=True)
    report["training"] = {**rates, "on_over_off": statistics.median(rates["on"]) / statistics.median(rates["off"])}
    print(json.dumps(report, indent=1))
    return 0


def actors(policy: Path, count: int, episodes: int) -> dict[str, float]:
    """Episodes per second of `count` actors, cold and warm."""
    from lerobot_ray.config.env import ReachEnvConfig
    from lerobot_ray.config.eval import EvalConfig
    from lerobot_ray.config.ray import RayConfig
    from lerobot_ray.on_ray.cluster import Workers, connected
    from lerobot_ray.on_ray.evaluation import Evaluation, EvaluationPlan, portions
    from lerobot_ray.on_ray.rollout_actor import PolicySource
    from lerobot_ray.on_ray.rollout_pool import RolloutPool

    def plan(name: str, number: int) -> EvaluationPlan:
        return EvaluationPlan(
            name=name,
            policy=PolicySource(folder=policy.absolute()),
            env=ReachEnvConfig(observation_height=64, observation_width=64),
            eval=EvalConfig(n_episodes=number, videos=0),
            seed=0,
            num_actors=count,
            video_dir=policy.parent / "videos",
        )

    nobody = Workers(count=0, fewest=0, use_gpu=False, resources={})
    with connected(RayConfig(), nobody, rollout_cpus=count):
        pool = RolloutPool(num_actors=count, resources={"CPU": 1})
        warm_up, measured = Evaluation(plan("first", count)), Evaluation(plan("measured", episodes))
        began = time.perf_counter()
        times = {}
        with pool:
            for run in (warm_up, measured):
                for portion in portions(run.plan):
                    pool.submit(portion)
            while not measured.is_over:
                for news in pool.poll(0.02):
                    (warm_up if news.evaluation == "first" else measured).add(news)
                if warm_up.is_over:
                    times.setdefault("started_s", time.perf_counter() - began)
            times["all_s"] = time.perf_counter() - began
    done = (episodes + count) / times["all_s"]
    warm = episodes / (times["all_s"] - times["started_s"])
    return {**{name: round(value, 2) for name, value in times.items()}, "episodes_per_s": done, "warm": warm}


def training(flags: list[str], output_dir: Path, frequency: int, *, first: int) -> float:
    """Samples per second of a run, median of its log windows after step `first`."""
    from lerobot_ray.config.parse import parse_train_config
    from lerobot_ray.on_ray.trainer import train
    from lerobot_ray.tracking.metric_log import load_metrics

    shutil.rmtree(output_dir, ignore_errors=True)
    more = [f"--env_eval_freq={frequency}", "--log_freq=5", "--mlflow.enable=false", "--eval.videos=0"]
    # the same checkpoints in both, so that only the rollouts differ
    code = train(parse_train_config([*flags, *more, f"--save_freq={first}"]))
    assert code == 0
    series = load_metrics(output_dir).series["train/samples_per_s"]
    return statistics.median(series.value[series.step > first].tolist())


def machine() -> dict[str, object]:
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "ray", "gymnasium", "numpy")}
    return {"cores": os.cpu_count(), "processor": platform.processor(), "python": platform.python_version(), **packages}


if __name__ == "__main__":
    sys.exit(main())
