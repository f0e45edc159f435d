"""What pushing costs a run, and how long a run takes to go on from the Hub, against a loopback Hub.

    python benchmarks/hub_push.py --root /tmp/bench --mbit 200 --json out.json

Three runs of the same steps on the same dataset (bench_dataset.py writes one): with checkpoints that stay here, with
checkpoints that are pushed over a line of --mbit, and one resumed from the Hub. Step times are the middle half of the
steps' own (`train/step_s`), so that the start and the saves themselves are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hub_server import HubServer

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
    with tempfile.TemporaryDirectory(prefix="hub-push-") as work, HubServer(Path(work) / "hub") as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.add_user("bench"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "RAY_AUTH_MODE": "disabled",
        }
        hub.fault("/lfs/", method="PUT", bytes_per_s=args.mbit * 1e6 / 8)
        result = measure(args, Path(work), environment)
        result["uploaded_mb"] = sum(path.stat().st_size for path in (Path(work) / "hub/blobs").iterdir()) / 1e6
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(args: argparse.Namespace, work: Path, environment: dict[str, str]) -> dict[str, object]:
    pushing = ["--policy.repo_id=bench/act", "--save_checkpoint_to_hub=true", "--policy.push_to_hub=false"]
    result: dict[str, object] = {"steps": args.steps, "save_freq": args.save_freq, "mbit": args.mbit}
    for name, flags in {"here": [], "pushed": pushing}.items():
        seconds = run(args, work / name, environment, [*flags, f"--steps={args.steps}"])
        result[name] = {"step_ms": middle_step_ms(work / name), "whole_run_s": round(seconds, 1)}
    environment = {**environment, "HF_HOME": str(work / "empty"), "LEROBOT_RAY_CACHE": str(work / "cache")}
    last = args.steps + 2
    flags = ["--resume=true", "--config_path=bench/act", f"--output_dir={work / 'resumed'}", f"--steps={last}"]
    command = [sys.executable, "-m", "lerobot_ray.train", *flags, "--save_checkpoint_to_hub=false"]
    started = time.time()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    result["resumed_first_step_after_s"] = round(first_step_at(work / "resumed") - started, 1)
    return result


def run(args: argparse.Namespace, output_dir: Path, environment: dict[str, str], flags: list[str]) -> float:
    command = [sys.executable, "-m", "lerobot_ray.train", "--dataset.repo_id=bench/data", f"--dataset.root={args.root}"]
    command += [*ACT, *args.policy, f"--batch_size={args.batch_size}", f"--save_freq={args.save_freq}", "--log_freq=1"]
    command += ["--mlflow.enable=false", f"--output_dir={output_dir}", *flags]
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def lines_of(output_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/step_s" in line]


def middle_step_ms(output_dir: Path) -> dict[str, float]:
    """The middle half of the step times: their mean, lowest and highest."""
    times = np.sort([1000 * line["train/update_s"] for line in lines_of(output_dir)])
    middle = times[len(times) // 4 : 3 * len(times) // 4 + 1]
    return {name: round(float(value), 2) for name, value in zip(("mean", "low", "high"), of(middle), strict=True)}


def of(values: np.ndarray) -> tuple[float, float, float]:
    return values.mean(), values.min(), values.max()


def first_step_at(output_dir: Path) -> float:
    return lines_of(output_dir)[0]["time"]


if __name__ == "__main__":
    main()
