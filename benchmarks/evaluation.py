"""What rollouts cost: episodes per second over actors, training while they run, and PushT beside lerobot-eval.

    python benchmarks/evaluation.py actors training --json out.json --markdown out.md
    python benchmarks/evaluation.py pusht --peer-python PEER/bin/python --json out.json --markdown out.md

actors     an untrained ACT plays reach with a 64x64 camera, so every episode takes its 60 steps. `cold` counts from the
           first portion handed out to the last result, the start of the actors included; `warm` from when each actor
           has played.
training   one run with rollouts every so many steps. Log windows (two steps each) while an evaluation is under way, the
           start of its actor included, against those with none; windows in which a checkpoint is written are neither.
           Last the same run without rollouts, beside a foreign process that is busy in turns: what the machine itself
           takes from a process when another core works.
pusht      seconds from the command line to a 50-episode result of the same untrained policy, ours and lerobot-eval in
           turn. gym-pusht must be importable by both interpreters.

Parts can be measured one at a time: what `--json` holds already of other parts stays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PIXELS = 64
WARM_STEPS = 80
"""Of a training run, not counted: frames are decoded for the first time, then they are cached."""
EVERY = 80
TURN_S = 10.0
"""How long the foreign process is busy, and then not there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: the first two)")
    parser.add_argument("--folder", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--actors", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--episodes", type=int, default=32, help="of `actors`, each time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of `actors` and `pusht` (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="of `training` (default: %(default)s)")
    parser.add_argument("--peer-python", type=Path, help="an interpreter with lerobot and gym-pusht")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    args.folder = args.folder.absolute()
    report = json.loads(args.json.read_text()) if args.json is not None and args.json.exists() else {}
    for name in args.parts or ["actors", "training"]:
        about = machine()
        report[name] = {"command": COMMANDS[name].format(args=args), "machine": about, "rows": PARTS[name](args)}
        print(markdown({name: report[name]}), flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.markdown is not None:
        args.markdown.write_text(markdown(report))


def actors(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Episodes per second by number of actors, in turn."""
    from lerobot_ray.demo import save_untrained

    policy = args.folder / "untrained"
    save_untrained(reach_flags(args.folder, steps=1), policy)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in args.actors}
    for _ in range(args.rounds):
        for count in args.actors:
            found[count].append(play(policy, count, args.episodes))
            print(count, found[count][-1], flush=True)
    rows = []
    for count, times in found.items():
        row = {"actors": count, "episodes": args.episodes}
        row |= {name: [round(each[name], 2) for each in times] for name in times[0]}
        rows.append(row)
    return rows


def play(policy: Path, count: int, episodes: int) -> dict[str, float]:
    """One evaluation on a Ray of its own: first one episode per actor, then those that are counted as warm."""
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
            policy=PolicySource(folder=policy),
            env=ReachEnvConfig(observation_height=PIXELS, observation_width=PIXELS),
            eval=EvalConfig(n_episodes=number, videos=0),
            seed=0,
            num_actors=count,
            video_dir=policy.parent / "videos",
        )

    nobody = Workers(count=0, fewest=0, use_gpu=False, resources={})
    with (
        connected(RayConfig(), nobody, rollout_cpus=count),
        RolloutPool(num_actors=count, resources={"CPU": 1}) as pool,
    ):
        # one portion of one episode each, so that all actors have loaded torch and the policy
        runs = {name: Evaluation(plan(name, number)) for name, number in (("first", count), ("rest", episodes))}
        began = time.perf_counter()
        for portion in portions(runs["first"].plan):
            for episode in portion.episodes:
                pool.submit(replaced(portion, (episode,)))
        wait(pool, runs, "first")
        started = time.perf_counter()
        for portion in portions(runs["rest"].plan):
            pool.submit(portion)
        wait(pool, runs, "rest")
        ended = time.perf_counter()
    return {
        "start_s": started - began,
        "cold_per_s": (episodes + count) / (ended - began),
        "warm_per_s": episodes / (ended - started),
    }


def replaced(portion: Any, episodes: tuple[int, ...]) -> Any:
    import dataclasses

    return dataclasses.replace(portion, episodes=episodes, batch_size=1)


def wait(pool: Any, runs: dict[str, Any], name: str) -> None:
    while not runs[name].is_over:
        for news in pool.poll(0.02):
            runs[news.evaluation].add(news)
    assert runs[name].error is None, runs[name].error


def training(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Samples per second while an evaluation is under way, and while none is."""
    rows = []
    for name, is_async in (("in the actor's process", False), ("in processes of their own (default)", True)):
        run_dir, command = training_command(args, "apart" if is_async else "inside")
        rollouts = [f"--env_eval_freq={EVERY}", "--eval.n_episodes=12", "--eval.videos=0"]
        run([*command, *rollouts, f"--eval.use_async_envs={str(is_async).lower()}"])
        infos = [json.loads(path.read_text()) for path in run_dir.glob("eval/eval_info_*.json")]
        played = [(info["evaluation"]["began_s"], info["overall"]["eval_s"]) for info in infos]
        rows.append(training_row(name, windows(run_dir, played)))
    run_dir, command = training_command(args, "neighbour")
    with ThreadPoolExecutor(1) as threads:
        training = threads.submit(run, command)
        was_busy = busy_in_turns(training)
        training.result()
    rows.append(training_row("none: a foreign process is busy", windows(run_dir, was_busy)))
    return rows


def training_command(args: argparse.Namespace, name: str) -> tuple[Path, list[str]]:
    run_dir = args.folder / f"run_{name}"
    shutil.rmtree(run_dir, ignore_errors=True)
    flags = reach_flags(args.folder, steps=args.steps, run_dir=run_dir)
    flags += ["--log_freq=2", "--dataset.cache=memory", "--mlflow.enable=false"]
    return run_dir, [sys.executable, "-m", "lerobot_ray.train", *flags]


def training_row(name: str, found: dict[str, list[float]]) -> dict[str, Any]:
    middle = {state: statistics.median(rates) for state, rates in found.items()}
    row: dict[str, Any] = {"environments": name}
    for state, rates in found.items():
        quarters = statistics.quantiles(rates, n=4)
        row[f"{state}, samples/s"] = f"{middle[state]:.1f} ({quarters[0]:.1f} to {quarters[2]:.1f})"
        row[f"windows {state}"] = len(rates)
    return row | {"on over off": round(middle["on"] / middle["off"], 3)}


def busy_in_turns(training: Future[None]) -> list[tuple[float, float]]:
    """When a process was busy beside `training`, and for how long each time: half of the time until it ends."""
    was_busy = []
    while not training.done():
        neighbour = multiprocessing.get_context("spawn").Process(target=forward_for_ever, daemon=True)
        began = time.time()
        neighbour.start()
        wait_for([training], timeout=TURN_S)
        neighbour.kill()
        neighbour.join()
        was_busy.append((began, time.time() - began))
        wait_for([training], timeout=TURN_S)
    return was_busy


def forward_for_ever() -> None:
    """Convolutions of small pictures, as a policy's backbone computes them, where rollouts stand with the scheduler."""
    import torch

    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    torch.set_num_threads(1)
    picture, widths = torch.rand(4, 3, PIXELS, PIXELS), (3, 64, 128, 256, 512)
    layers = [torch.nn.Conv2d(inner, outer, 3, stride=2, padding=1) for inner, outer in itertools.pairwise(widths)]
    network = torch.nn.Sequential(*layers)
    with torch.inference_mode():
        while True:
            network(picture)


def windows(run_dir: Path, played: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Samples per second of every log window, by whether something was played (from, for so long) beside it."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    written = [entry["time"] for entry in lines if entry.get("event") == "checkpoint"]
    logged = [entry for entry in lines if "train/samples_per_s" in entry]
    found: dict[str, list[float]] = {"off": [], "on": []}
    for before, entry in itertools.pairwise(logged):
        first, last = before["time"], entry["time"]
        is_saving = entry["train/checkpoint_s"] > 0 or any(first <= at <= last for at in written)
        if entry["step"] <= WARM_STEPS or is_saving:
            continue
        if any(began <= first and last <= began + took_s for began, took_s in played):
            found["on"].append(entry["train/samples_per_s"])
        elif all(last < began or first > began + took_s for began, took_s in played):
            found["off"].append(entry["train/samples_per_s"])
    return found


def pusht(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Fifty episodes of PushT to their end, ours with one and two actors, and LeRobot's."""
    from tests.pusht_policy import save_pusht_policy

    policy = save_pusht_policy(
        args.folder / "pusht", chunk_size=16, n_action_steps=8, dim_model=128, n_heads=4, dim_feedforward=512,
        n_encoder_layers=2, pretrained_backbone_weights=None, device="cpu",
    )  # fmt: skip
    env = ["--env.type=pusht", "--env.observation_height=96", "--env.observation_width=96"]
    usual = [f"--policy.path={policy}", *env, "--eval.n_episodes=50", "--seed=1000"]
    ours = [sys.executable, "-m", "lerobot_ray.evaluate", *usual, "--eval.videos=4"]
    commands = {f"lerobot_ray, {count} actors": [*ours, f"--actors={count}"] for count in (1, 2)}
    if args.peer_python is not None:
        theirs = [str(args.peer_python.parent / "lerobot-eval"), *usual, "--policy.device=cpu"]
        commands["lerobot-eval, its defaults"] = theirs
        commands["lerobot-eval, 10 environments, one process"] = [
            *theirs,
            "--eval.batch_size=10",
            "--eval.use_async_envs=false",
        ]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            out = args.folder / "pusht_results"
            shutil.rmtree(out, ignore_errors=True)
            began = time.perf_counter()
            run([*command, f"--output_dir={out}"])
            took_s = time.perf_counter() - began
            overall = json.loads((out / "eval_info.json").read_text())["overall"]
            found[name].append((took_s, overall["eval_s"], overall["avg_sum_reward"]))
            print(name, found[name][-1], flush=True)
    return [
        {
            "what": name,
            "command to result, s": [round(took_s, 1) for took_s, _, _ in times],
            "of it playing, s": [round(eval_s, 1) for _, eval_s, _ in times],
            "mean return": [round(mean, 3) for _, _, mean in times],
        }
        for name, times in found.items()
    ]


def reach_flags(folder: Path, *, steps: int, run_dir: Path | None = None) -> list[str]:
    """The demo's training run, on demonstrations that are recorded when they are not there."""
    from lerobot_ray.demo import record, train_flags

    if not (folder / "dataset").exists():
        record(folder / "dataset", episodes=30, image_hw=(PIXELS, PIXELS))
    return train_flags(folder / "dataset", run_dir or folder / "run", steps=steps, pixels=PIXELS)


def run(command: list[str]) -> None:
    environment = dict(os.environ)
    if not command[0].startswith(sys.prefix):  # the other interpreter has packages of its own
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    packages = {name: version(name) for name in ("torch", "ray", "gymnasium", "numpy")}
    about = {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count()}
    return {**about, "python": platform.python_version(), **packages, "load_before": round(os.getloadavg()[0], 1)}


def markdown(report: dict[str, Any]) -> str:
    lines = ["# What rollouts cost", ""]
    for part, result in report.items():
        names = list(result["rows"][0])
        about = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
        lines += [f"## {part}", "", f"`{result['command']}`", "", about, ""]
        lines += [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
        lines += [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in result["rows"]]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "actors": actors,
    "training": training,
    "pusht": pusht,
}
COMMANDS = {
    "actors": "benchmarks/evaluation.py actors --episodes {args.episodes} --rounds {args.rounds}",
    "training": "benchmarks/evaluation.py training --steps {args.steps}",
    "pusht": "benchmarks/evaluation.py pusht --rounds {args.rounds} --peer-python PEER/bin/python",
}

if __name__ == "__main__":
    main()
