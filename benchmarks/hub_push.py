"""What a second place costs a run, and how long a run takes to go on from it: a loopback Hub, a loopback S3.

    python benchmarks/hub_push.py --root /tmp/bench --mbit 200 --json OUT.json    (writes OUT.md beside it)

Runs of the same steps on the same dataset (bench_dataset.py writes one): with checkpoints that stay here, pushed to the
Hub over a line of --mbit, copied to S3; and one resumed from each on an empty cache. Step times are the middle half of
the steps' own (`train/update_s`), so that the start and the saves themselves are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hub_server import HubServer
from tests.s3_server import S3Server

PLACES = {
    "here": [],
    "hub": ["--policy.repo_id=bench/act", "--save_checkpoint_to_hub=true", "--policy.push_to_hub=false"],
    "s3": ["--ray.storage_path=s3://bench/runs"],
}
# An ACT of about 50 million parameters, its ResNet included.
ACT = ["--policy.type=act", "--policy.pretrained_backbone_weights=null", "--policy.device=cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the dataset")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save-freq", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--mbit", type=float, default=200.0, help="the line's speed")
    parser.add_argument("--policy", nargs="*", default=[], help="more policy flags, for a smaller one")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hub-push-") as work,
        HubServer(Path(work) / "server") as hub,
        S3Server() as s3,
    ):
        s3.put("bench", {"elsewhere": b""})
        environment = (
            os.environ
            | s3.environment
            | {
                "HF_ENDPOINT": hub.endpoint,
                "HF_TOKEN": hub.add_user("bench"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "RAY_AUTH_MODE": "disabled",
            }
        )
        hub.fault("/lfs/", method="PUT", bytes_per_s=args.mbit * 1e6 / 8)
        result = measure(args, Path(work), environment)
        result["uploaded_mb"] = sum(path.stat().st_size for path in (Path(work) / "server/blobs").iterdir()) / 1e6
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
        args.json.with_suffix(".md").write_text(page(result))


def measure(args: argparse.Namespace, work: Path, environment: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "command": f"python benchmarks/hub_push.py --root {args.root.name} --steps {args.steps} "
        f"--save-freq {args.save_freq} --batch-size {args.batch_size} --mbit {args.mbit:g}",
        "cpus": os.cpu_count(),
        "torch": version("torch"),
        "steps": args.steps,
        "save_freq": args.save_freq,
        "mbit": args.mbit,
    }
    for name, flags in PLACES.items():
        seconds = run(args, work / name, environment, [*flags, f"--steps={args.steps}"])
        result[name] = {"step_ms": middle_step_ms(work / name), "whole_run_s": round(seconds, 1)}
    names = {"here": str(work / "here"), "hub": "bench/act", "s3": "s3://bench/runs/s3"}
    result["first_step_after_resume_s"] = {place: resumed(args, work, environment, names[place]) for place in PLACES}
    last = work / "here" / "checkpoints" / "last"
    result["checkpoint_mb"] = sum(path.stat().st_size for path in last.resolve().rglob("*") if path.is_file()) / 1e6
    return result


def resumed(args: argparse.Namespace, work: Path, environment: dict[str, str], name: str) -> float:
    """Seconds from the command to the end of its first step, with nothing in the caches."""
    place = work / f"from-{name.replace('/', '-')}"
    environment = {**environment, "HF_HOME": str(place / "home"), "LEROBOT_RAY_CACHE": str(place / "cache")}
    flags = ["--resume=true", f"--config_path={name}", f"--output_dir={place / 'run'}", f"--steps={args.steps + 2}"]
    flags += ["--save_checkpoint_to_hub=false", "--ray.storage_path=null", "--save_checkpoint=false"]
    started = time.time()
    train(flags, environment)
    return round(lines_of(place / "run")[0]["time"] - started, 1)


def run(args: argparse.Namespace, output_dir: Path, environment: dict[str, str], flags: list[str]) -> float:
    command = ["--dataset.repo_id=bench/data", f"--dataset.root={args.root}"]
    command += [*ACT, *args.policy, f"--batch_size={args.batch_size}", f"--save_freq={args.save_freq}", "--log_freq=1"]
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


def page(result: dict[str, Any]) -> str:
    """The figures as a page."""
    here = result["here"]["step_ms"]["mean"]
    rows = [
        f"| {place} | {result[place]['step_ms']['mean']:.0f} ({result[place]['step_ms']['low']:.0f} to "
        f"{result[place]['step_ms']['high']:.0f}) | {100 * (result[place]['step_ms']['mean'] / here - 1):+.1f} % "
        f"| {result[place]['whole_run_s']:.0f} | {result['first_step_after_resume_s'][place]:.0f} |"
        for place in PLACES
    ]
    return "\n".join(
        [
            "# What a second place for checkpoints costs",
            "",
            f"`{result['command']}` on {result['cpus']} CPU cores, torch {result['torch']}. The Hub, the S3 and",
            f"training share them. A checkpoint has {result['checkpoint_mb']:.0f} MB, one every {result['save_freq']}",
            f"of {result['steps']} steps; the line to the Hub carries {result['mbit']:g} Mbit/s, that to S3 is not",
            "slowed.",
            "",
            "| checkpoints go to | step, ms (middle half) | against here | whole run, s | first step after resume, s |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "*here*: the local folder alone. Resuming begins with the command, nothing in the caches.",
            "",
        ]
    )


def of(values: np.ndarray) -> tuple[float, float, float]:
    return values.mean(), values.min(), values.max()


if __name__ == "__main__":
    main()
