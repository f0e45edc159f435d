"""What a sweep costs beside training, and what stopping early saves.

    python benchmarks/sweeps.py                     # all three, some minutes on two cores
    python benchmarks/sweeps.py use --trials 12     # slots busy, seconds from a trial's begin to its first step
    python benchmarks/sweeps.py alone               # the same seconds for runs of lerobot_ray.train, started one by one
    python benchmarks/sweeps.py asha                # ASHA against the whole grid on a planted optimum

The dataset is the demo's (an arm that reaches, 96 × 96 video), the policy a small ACT. Sweeps run as a user starts
them, in processes of their own with a Ray of their own; every number is read from what they leave in their folders.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lerobot_ray.demo import record
from lerobot_ray.sweeps.journal import read_journal
from lerobot_ray.sweeps.sweep_file import load_sweep
from lerobot_ray.sweeps.trial import best_trial, rebuilt
from lerobot_ray.sweeps.use import use_of

SMALL_ACT = {
    "type": "act",
    "device": "cpu",
    "pretrained_backbone_weights": "null",
    "chunk_size": 10,
    "n_action_steps": 10,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 64,
    "n_encoder_layers": 1,
    "n_vae_encoder_layers": 1,
    "latent_dim": 8,
}
LEARNING_RATES = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
"""The planted optimum lies in the middle; the ends cannot learn."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["use", "alone", "asha", "all"], default="all")
    parser.add_argument("--trials", type=int, default=12, help="short trials of `use`")
    parser.add_argument("--at_once", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="of a short trial")
    parser.add_argument("--long_steps", type=int, default=60, help="of a trial of `asha`")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweeps_") as name:
        folder = Path(name)
        record(folder / "data", episodes=6, image_hw=(96, 96))
        numbers: dict[str, Any] = {}
        if args.what in ("use", "all"):
            numbers["use"] = use(folder, trials=args.trials, at_once=args.at_once, steps=args.steps)
        if args.what in ("alone", "all"):
            numbers["alone"] = alone(folder, runs=3, steps=args.steps)
        if args.what in ("asha", "all"):
            numbers["asha"] = asha(folder, steps=args.long_steps)
    print(json.dumps(numbers, indent=1))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1))
    return 0


def use(folder: Path, *, trials: int, at_once: int, steps: int) -> dict[str, Any]:
    """Many short trials: how much of the slots' time they had, and what beginning one costs."""
    rates = [10 ** (-4 + number / trials) for number in range(trials)]
    sweep = {"searcher": "grid", "max_concurrent": at_once, "parameters": {"optimizer.lr": rates}}
    out = run_sweep(folder, "use", sweep, steps=steps)
    state = rebuilt(load_sweep(folder / "use.yaml"), read_journal(out))
    used = use_of(state)
    begins = {event["trial"]: event["time"] for event in read_journal(out) if event["event"] == "begin"}
    waits = [first_step_s(out / "trials" / f"{number:03d}") - begin for number, begin in begins.items()]
    ends = {event["trial"]: event["time"] for event in read_journal(out) if event["event"] == "end"}
    slots: dict[int, list[tuple[float, float]]] = {}
    for trial in state.trials.values():
        slots.setdefault(trial.spans[0][0], []).append((begins[trial.number], ends[trial.number]))
    gaps = [later[0] - earlier[1] for spans in slots.values() for earlier, later in pairwise(spans)]
    start = read_journal(out)[0]["time"]
    trained_s = sum(ends[number] - begins[number] - wait for number, wait in zip(begins, waits, strict=True))
    there_s = used.slots * (max(ends.values()) - min(begins.values()))
    return {
        "trials": trials,
        "slots": used.slots,
        "busy": round(used.busy, 4),
        "in_steps": round(trained_s / there_s, 4),
        "first_trial_begins_after_s": round(min(begins.values()) - start, 2),
        "first_step_of_the_first_trials_s": [round(wait, 2) for wait in waits[: used.slots]],
        "first_step_of_later_trials_s": spread(waits[used.slots :]),
        "between_trials_s": spread(gaps),
        "trial_s": spread([ends[number] - begins[number] for number in begins]),
    }


def alone(folder: Path, *, runs: int, steps: int) -> dict[str, Any]:
    """The same training runs, each started by itself: seconds from the command to the first step, and to the end."""
    firsts, wholes = [], []
    for number in range(runs):
        out = folder / f"alone-{number}"
        began = time.time()
        call("lerobot_ray.train", [*flags(folder, steps=steps), f"--output_dir={out}"])
        wholes.append(time.time() - began)
        firsts.append(first_step_s(out) - began)
    return {"runs": runs, "first_step_s": spread(firsts), "whole_s": spread(wholes)}


def asha(folder: Path, *, steps: int) -> dict[str, Any]:
    """The grid with and without ASHA: steps trained, and the metric of the best."""
    found = {}
    for name, scheduler in (("grid", "none"), ("asha", {"type": "asha", "grace_steps": max(1, steps // 9)})):
        sweep = {
            "searcher": "grid",
            "scheduler": scheduler,
            "parameters": {"optimizer.lr": [*LEARNING_RATES[4:], *LEARNING_RATES[:4]]},
        }
        out = run_sweep(folder, name, sweep, steps=steps)
        state = rebuilt(load_sweep(folder / f"{name}.yaml"), read_journal(out))
        best, used = best_trial(state), use_of(state)
        assert best is not None
        found[name] = {
            "best": best.values["optimizer.lr"],
            "metric": best.score(state.sweep),
            "steps": used.steps,
            "seconds": round(used.wall_s, 1),
            "stopped": sum(trial.status == "stopped" for trial in state.trials.values()),
            "failed": sum(trial.status == "failed" for trial in state.trials.values()),
        }
    return {**found, "steps_saved": round(1 - found["asha"]["steps"] / found["grid"]["steps"], 3)}


def run_sweep(folder: Path, name: str, sweep: dict[str, Any], *, steps: int) -> Path:
    file, out = folder / f"{name}.yaml", folder / name
    file.write_text(yaml.safe_dump({"metric": "train/loss", "mode": "min", "max_concurrent": 1, **sweep}))
    call("lerobot_ray.tune", [f"--sweep={file}", f"--output_dir={out}", *flags(folder, steps=steps)])
    return out


def flags(folder: Path, *, steps: int) -> list[str]:
    return [
        *(f"--policy.{name}={value}" for name, value in SMALL_ACT.items()),
        "--dataset.repo_id=bench/reach",
        f"--dataset.root={folder / 'data'}",
        "--batch_size=8",
        f"--steps={steps}",
        "--log_freq=1",
        "--save_freq=0",
        "--mlflow.enable=false",
    ]


def call(module: str, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{module} ended with {done.returncode}")


def first_step_s(run: Path) -> float:
    """When the first step was done, Unix time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line["time"] for line in lines if "train/loss" in line)


def spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
