"""What a second place costs a run, and how long a run takes to go on from it: a loopback Hub, a loopback S3.

    python benchmarks/hub_push.py --root /tmp/bench --mbit 200 --json OUT.json    (writes OUT.md beside it)
    python benchmarks/hub_push.py --root /tmp/bench --size 500M --steps 2 --save-freq 2 --batch-size 1 --json OUT.json

Runs of the same steps on the same dataset (bench_dataset.py writes one): with checkpoints that stay here, pushed to the
Hub over a line of --mbit, copied to S3; and one resumed from each on an empty cache. Step times are the middle half of
the steps' own (`train/update_s`), so that the start and the saves themselves are left out; with fewer than eight steps
none are given.

The S3 is moto unless --s3 names another that is running: moto answers every range of a file from the whole of it, which
is too slow and too large for files of gigabytes. The disk must hold five checkpoints. What --json holds of other sizes
stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hub_server import HubServer
from tests.s3_server import S3Server

PLACES = {
    "here": [],
    "hub": ["--policy.repo_id=bench/act", "--save_checkpoint_to_hub=true", "--policy.push_to_hub=false"],
    "s3": ["--ray.storage_path=s3://bench/runs"],
}
# An ACT, its ResNet included.
ACT = ["--policy.type=act", "--policy.pretrained_backbone_weights=null", "--policy.device=cpu"]
SIZES = {"50M": [], "500M": ["--policy.dim_model=1536", "--policy.dim_feedforward=14336"]}
TIMED_STEPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the dataset")
    parser.add_argument("--size", choices=SIZES, default="50M", help="parameters, about (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save-freq", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--mbit", type=float, default=200.0, help="the line's speed")
    parser.add_argument("--policy", nargs="*", default=[], help="more policy flags, for a smaller one")
    parser.add_argument("--s3", metavar="URL", help="an S3 that is running, its keys in the environment")
    parser.add_argument("--folder", type=Path, help="where runs and servers keep their files (default: the system's)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    with (
        tempfile.TemporaryDirectory(prefix="hub-push-", dir=args.folder) as work,
        HubServer(Path(work) / "server") as hub,
        S3Server() as moto,
    ):
        environment = os.environ | ({"AWS_ENDPOINT_URL": args.s3} if args.s3 else moto.environment)
        s3 = boto3.client("s3", endpoint_url=args.s3) if args.s3 else moto.client()
        s3.create_bucket(Bucket="bench")
        environment |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.add_user("bench"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "RAY_AUTH_MODE": "disabled",
        }
        hub.fault("/lfs/", method="PUT", bytes_per_s=args.mbit * 1e6 / 8)
        report[args.size] = measure(args, Path(work), environment)
    print(json.dumps(report[args.size], indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        args.json.with_suffix(".md").write_text(page(report))


def measure(args: argparse.Namespace, work: Path, environment: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "command": f"python benchmarks/hub_push.py --root {args.root.name} --size {args.size} --steps {args.steps} "
        f"--save-freq {args.save_freq} --batch-size {args.batch_size} --mbit {args.mbit:g}",
        "cpus": os.cpu_count(),
        "torch": version("torch"),
        "steps": args.steps,
        "save_freq": args.save_freq,
        "mbit": args.mbit,
        "s3": "another" if args.s3 else "moto",
        "places": {},
    }
    names = {"here": str(work / "here"), "hub": "bench/act", "s3": "s3://bench/runs/s3"}
    for name, flags in PLACES.items():
        seconds = run(args, work / name, environment, [*flags, f"--steps={args.steps}"])
        last = (work / name / "checkpoints/last").resolve()
        result["checkpoint_mb"] = sum(path.stat().st_size for path in last.rglob("*") if path.is_file()) / 1e6
        steps = middle_step_ms(work / name) if args.steps >= TIMED_STEPS else None
        if name != "here":  # what is resumed from elsewhere needs nothing of it
            shutil.rmtree(work / name)
        resumed_s = resumed(args, work, environment, names[name])
        result["places"][name] = {"step_ms": steps, "whole_run_s": round(seconds, 1), "resumed_s": resumed_s}
        shutil.rmtree(work / name, ignore_errors=True)
        print(name, result["places"][name], flush=True)
    return result


def resumed(args: argparse.Namespace, work: Path, environment: dict[str, str], name: str) -> float:
    """Seconds from the command to the end of its first step, with nothing in the caches."""
    place = work / f"from-{name.replace('/', '-')}"
    environment = {**environment, "HF_HOME": str(place / "home"), "LEROBOT_RAY_CACHE": str(place / "cache")}
    flags = ["--resume=true", f"--config_path={name}", f"--output_dir={place / 'run'}", f"--steps={args.steps + 2}"]
    flags += ["--save_checkpoint_to_hub=false", "--ray.storage_path=null", "--save_checkpoint=false"]
    started = time.time()
    train(flags, environment)
    first_step_ended = lines_of(place / "run")[0]["time"]
    shutil.rmtree(place)
    return round(first_step_ended - started, 1)


def run(args: argparse.Namespace, output_dir: Path, environment: dict[str, str], flags: list[str]) -> float:
    command = ["--dataset.repo_id=bench/data", f"--dataset.root={args.root}"]
    command += [
        *ACT,
        *SIZES[args.size],
        *args.policy,
        f"--batch_size={args.batch_size}",
        f"--save_freq={args.save_freq}",
        "--log_freq=1",
    ]
    command += ["--mlflow.enable=false", f"--output_dir={output_dir}", *flags]
    started = time.perf_counter()
    train(command, environment)
    return time.perf_counter() - started


def train(flags: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "lerobot_ray.train", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")


def lines_of(output_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/step_s" in line]


def middle_step_ms(output_dir: Path) -> dict[str, float]:
    """The middle half of the step times: their mean, lowest and highest."""
    times = np.sort([1000 * line["train/update_s"] for line in lines_of(output_dir)])
    middle = times[len(times) // 4 : 3 * len(times) // 4 + 1]
    return {name: round(float(value), 2) for name, value in zip(("mean", "low", "high"), of(middle), strict=True)}


def page(report: dict[str, Any]) -> str:
    """The figures as a page."""
    lines = ["# What a second place for checkpoints costs", ""]
    for size, result in report.items():
        places = result["places"]
        lines += [
            f"## {size} parameters",
            "",
            f"`{result['command']}`",
            "",
            f"{result['cpus']} CPU cores, torch {result['torch']}. The Hub, the S3 and training share them.",
            f"A checkpoint has {result['checkpoint_mb']:.0f} MB, one every {result['save_freq']} of {result['steps']} "
            f"steps; the line to the Hub carries {result['mbit']:g} Mbit/s, that to S3 ({result['s3']}) is not slowed.",
            "",
        ]
        if places["here"]["step_ms"] is None:
            lines += ["| checkpoints go to | whole run, s | resumed after, s |", "| --- | --- | --- |"]
            lines += [f"| {name} | {row['whole_run_s']:.0f} | {row['resumed_s']:.0f} |" for name, row in places.items()]
        else:
            here = places["here"]["step_ms"]["mean"]
            lines += [
                "| checkpoints go to | step, ms (middle half) | against here | whole run, s | resumed after, s |",
                "| --- | --- | --- | --- | --- |",
            ]
            lines += [
                f"| {name} | {step['mean']:.0f} ({step['low']:.0f} to {step['high']:.0f}) "
                f"| {100 * (step['mean'] / here - 1):+.1f} % | {row['whole_run_s']:.0f} | {row['resumed_s']:.0f} |"
                for name, row in places.items()
                if (step := row["step_ms"])
            ]
        lines.append("")
    lines.append(
        "*here*: the local folder alone. *Resumed after*: from the command, with nothing in the caches, to the"
    )
    return "\n".join([*lines, "end of the first step.", ""])


def of(values: np.ndarray) -> tuple[float, float, float]:
    return values.mean(), values.min(), values.max()


if __name__ == "__main__":
    main()
