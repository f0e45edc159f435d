"""Time and memory of one training step of a policy, with LeRobot's policy beside it in the same run.

    python benchmarks/policy_step.py --peer-python PEER/bin/python       # CPU, about a minute
    python benchmarks/policy_step.py --device cuda --size real --batch 8 32 64 --precision fp32 bf16 \\
        --mode eager compiled --peer-python PEER/bin/python --json out.json --markdown out.md

Every line is measured in a process of its own, `--rounds` times, ours and LeRobot's in turn, so that a machine that
slows down slows both. A step is what a training loop does: forward under autocast, backward, gradient clipping,
optimizer, zeroed gradients, each with its own defaults: ours draws noise by stream index and takes the fused
optimizer, LeRobot's is built and run as lerobot-train does it. Batches are random and stay on the device: data loading
is not here. Forward, backward and optimizer are timed with the device waited for in between; the whole step without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WHO = ("ours", "lerobot")
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "act": {
            "options": {"chunk_size": 20, "n_action_steps": 20, "dim_model": 128, "dim_feedforward": 512},
            "cameras": {"front": (96, 128)},
        },
        "diffusion": {
            "options": {"horizon": 16, "n_action_steps": 8, "down_dims": [64, 128, 256], "crop_shape": [84, 112]},
            "cameras": {"front": (96, 128)},
        },
    },
    "real": {  # the policies' defaults on a bimanual robot
        "act": {"options": {}, "cameras": {"left": (480, 640), "right": (480, 640)}},
        "diffusion": {"options": {"crop_shape": [216, 288]}, "cameras": {"left": (240, 320), "right": (240, 320)}},
    },
}
JOINTS = 14
LEARNING_RATE = 1e-5


def main() -> None:
    args = parse_args()
    if args.one:
        print(json.dumps(measure(json.loads(args.one))))
        return
    interpreters = {"ours": sys.executable} | ({"lerobot": args.peer_python} if args.peer_python else {})
    rows = []
    for spec in wanted(args):
        rounds: dict[str, list[dict[str, Any]]] = {who: [] for who in interpreters}
        for _ in range(args.rounds):
            for who, python in interpreters.items():
                rounds[who].append(run_one(python, spec | {"who": who}))
        for who, results in rounds.items():
            rows.append(spec | {"who": who} | summary(results))
            print(line(rows[-1]), flush=True)
    report = {"command": " ".join(sys.argv), "machine": machine(args.device), "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(report))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", nargs="+", choices=["act", "diffusion"], default=["act", "diffusion"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", nargs="+", type=int, default=[8])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--mode", nargs="+", choices=["eager", "compiled"], default=["eager"])
    parser.add_argument("--steps", type=int, default=5, help="steps timed per round (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="torch threads on a CPU; 0: torch's choice")
    parser.add_argument("--tf32", action="store_true", help="let fp32 matrix products use TF32, for both")
    parser.add_argument("--peer-python", help="an interpreter that has lerobot")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def wanted(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What to measure, one entry per pair of lines."""
    common = {name: getattr(args, name) for name in ("device", "size", "steps", "warmup", "threads", "tf32")}
    return [
        common | {"policy": policy, "batch": batch, "precision": precision, "mode": mode}
        for policy in args.policy
        for precision in args.precision
        for mode in args.mode
        for batch in args.batch
    ]


def run_one(python: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The measurement in a fresh process, or why there is none."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [python, str(Path(__file__).resolve()), "--one", json.dumps(spec)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs in its own process, under either interpreter: nothing of lerobot_ray is imported for LeRobot's line."""
    import torch

    if spec["threads"]:
        torch.set_num_threads(spec["threads"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec["tf32"]
    torch.manual_seed(0)
    device = torch.device(spec["device"])
    policy, optimizer = (build_ours if spec["who"] == "ours" else build_lerobot)(spec)
    policy.train()
    if spec["mode"] == "compiled":
        policy.compile()
    batch = make_batch(spec, device)
    before = resident_bytes()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(times: dict[str, list[float]] | None) -> None:
        marks = [wait()] if times is not None else []
        with torch.autocast(device.type, torch.bfloat16, enabled=spec["precision"] == "bf16"):
            loss, _ = policy(dict(batch))
        marks += [wait()] if times is not None else []
        loss.backward()
        marks += [wait()] if times is not None else []
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        if times is not None:
            marks.append(wait())
            for name, start, end in zip(("forward", "backward", "optimizer"), marks, marks[1:], strict=False):
                times[name].append(end - start)

    for _ in range(spec["warmup"]):
        step(None)
    phases: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": []}
    for _ in range(spec["steps"]):
        step(phases)
    start = wait()
    for _ in range(spec["steps"]):
        step(None)
    whole = (wait() - start) / spec["steps"]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resource_peak_bytes() - before
    return {
        "torch": torch.__version__,
        "step_ms": whole * 1e3,
        "peak_mb": peak / 1e6,
        **{f"{name}_ms": statistics.median(values) * 1e3 for name, values in phases.items()},
    }


def build_ours(spec: dict[str, Any]) -> tuple[Any, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from lerobot_ray.config.decode import decode
    from lerobot_ray.config.policy import PolicyConfig
    from lerobot_ray.core.types import FeatureType, PolicyFeature
    from lerobot_ray.engine.optim import build_optimizers
    from lerobot_ray.policies.registry import build_policy

    config = decode(PolicyConfig, {"type": spec["policy"], **options(spec)})  # type: ignore[type-abstract]
    fill_features(config, spec, PolicyFeature, FeatureType)
    policy = build_policy(config)
    return policy, build_optimizers(config.get_optimizer_preset(), policy.get_optim_params())["main"]


def build_lerobot(spec: dict[str, Any]) -> tuple[Any, Any]:
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config

    config = make_policy_config(spec["policy"], **options(spec))
    fill_features(config, spec, PolicyFeature, FeatureType)
    policy = get_policy_class(spec["policy"])(config).to(spec["device"])
    return policy, config.get_optimizer_preset().build(policy.get_optim_params())


def options(spec: dict[str, Any]) -> dict[str, Any]:
    fixed = {"device": spec["device"], "pretrained_backbone_weights": None, "push_to_hub": False}
    return fixed | SIZES[spec["size"]][spec["policy"]]["options"]


def fill_features(config: Any, spec: dict[str, Any], feature: Any, kind: Any) -> None:
    cameras = SIZES[spec["size"]][spec["policy"]]["cameras"]
    config.input_features = {
        **{f"observation.images.{name}": feature(kind.VISUAL, (3, *hw)) for name, hw in cameras.items()},
        "observation.state": feature(kind.STATE, (JOINTS,)),
    }
    config.output_features = {"action": feature(kind.ACTION, (JOINTS,))}


def make_batch(spec: dict[str, Any], device: Any) -> dict[str, Any]:
    import torch

    count, given = spec["batch"], SIZES[spec["size"]][spec["policy"]]
    is_act = spec["policy"] == "act"
    window = () if is_act else (2,)
    length = given["options"].get("chunk_size", 100) if is_act else given["options"].get("horizon", 64)
    batch = {
        f"observation.images.{name}": torch.randn(count, *window, 3, *hw, device=device)
        for name, hw in given["cameras"].items()
    }
    batch["observation.state"] = torch.randn(count, *window, JOINTS, device=device)
    batch["action"] = torch.randn(count, length, JOINTS, device=device).clamp(-1, 1)
    batch["action_is_pad"] = torch.zeros(count, length, dtype=torch.bool, device=device)
    if spec["who"] == "ours":
        batch["stream_index"] = torch.arange(count, device=device)
    return batch


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def resource_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, the spread of the step, and the first error if there is one."""
    errors = [result["error"] for result in results if "error" in result]
    if errors:
        return {"error": errors[0]}
    numbers = {key: statistics.median(result[key] for result in results) for key in results[0] if key != "torch"}
    steps = [result["step_ms"] for result in results]
    return numbers | {"step_min_ms": min(steps), "step_max_ms": max(steps), "torch": results[0]["torch"]}


def line(row: dict[str, Any]) -> str:
    name = f"{row['policy']:9} {row['precision']} {row['mode']:8} batch {row['batch']:3}  {row['who']:7}"
    if "error" in row:
        return f"{name}  {row['error']}"
    return (
        f"{name}  step {row['step_ms']:8.1f} ms ({row['step_min_ms']:.1f}-{row['step_max_ms']:.1f})  forward "
        f"{row['forward_ms']:.1f}  backward {row['backward_ms']:.1f}  optimizer {row['optimizer_ms']:.1f}  "
        f"peak {row['peak_mb']:.0f} MB"
    )


def machine(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform()}
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def markdown(report: dict[str, Any]) -> str:
    """The report as a page: what ran where, and a table with LeRobot's step over ours."""
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    lines = [
        "# Training step of a policy",
        "",
        f"`{report['command']}`",
        "",
        f"{facts}. Times in ms, medians over rounds; the step's range in brackets. Gain: LeRobot's step over ours.",
        "",
        "| policy | precision | mode | batch | who | torch | forward | backward | optimizer | step | peak MB | gain |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("policy", "precision", "mode", "batch")
    for row in report["rows"]:
        cells = [str(row[key]) for key in keys] + [row["who"]]
        if "error" in row:
            lines.append("| " + " | ".join([*cells, "", row["error"].replace("|", "/"), "", "", "", "", ""]) + " |")
            continue
        peers = [r for r in report["rows"] if r["who"] == "lerobot" and all(r[key] == row[key] for key in keys)]
        is_compared = row["who"] == "ours" and peers and "error" not in peers[0]
        gain = f"{peers[0]['step_ms'] / row['step_ms']:.2f}" if is_compared else ""
        cells += [row["torch"], *(f"{row[f'{name}_ms']:.1f}" for name in ("forward", "backward", "optimizer"))]
        cells.append(f"{row['step_ms']:.1f} ({row['step_min_ms']:.1f}–{row['step_max_ms']:.1f})")
        lines.append("| " + " | ".join([*cells, f"{row['peak_mb']:.0f}", gain]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
