"""Cost of asking an order which sample comes at a stream index: per index, and of a seek far away.

    python benchmarks/order_seek.py --json out.json

For every order, at the numbers of samples given by --samples (LeRobot's order holds an epoch in memory, so it stops at
--lerobot-limit). Measured, --repeats times each, medians and spread reported:

- ns per index: a block of consecutive indices of one epoch, what a rank asks for, the epoch known already;
- seek: one index of an epoch never asked for before, what a resumed run pays once, and each new epoch again;
- memory: what the process grew by while building the order and seeking.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

from lerobot_ray.data.order import ORDERS, Order, build_order

EPISODE_FRAMES = 1_000_000
"""Length of an episode at most: for a trillion samples, a million episodes."""


def main() -> None:
    args = parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args)))
        return
    results = []
    for samples in args.samples:
        for name in args.orders:
            if name == "lerobot" and samples > args.lerobot_limit:
                results.append({"order": name, "samples": samples, "skipped": f"needs {8 * samples / 1e9:g} GB"})
            else:  # a process each: memory is the growth of its peak
                command = [sys.executable, __file__, "--one", name, str(samples), *passed_on(args)]
                results.append(json.loads(subprocess.check_output(command, text=True)))
            print(line(results[-1]), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"command": sys.argv, "machine": machine(), "results": results}, file, indent=1)


def measure(name: str, samples: str, args: argparse.Namespace) -> dict[str, Any]:
    num_samples = int(samples)
    if name == "lerobot":
        import torch  # noqa: F401  its import is not the order's cost
    warm_up = build_order(name, num_samples=72, seed=1, episode_lengths=np.array([72]))
    warm_up.samples(np.arange(args.block))
    episodes = max(1, num_samples // EPISODE_FRAMES)
    lengths = np.full(episodes, num_samples // episodes)
    lengths[-1] += num_samples - lengths.sum()
    before = peak_bytes()
    began = time.perf_counter()
    order = build_order(
        name,
        num_samples=num_samples,
        seed=1,
        episode_lengths=lengths,
        shard_frames=args.shard_frames,
        window_shards=args.window_shards,
    )
    build_s = time.perf_counter() - began
    seeks = [timed(order, np.array([epoch * num_samples + num_samples // 3])) for epoch in range(5, 5 + args.repeats)]
    epoch = 5 + args.repeats - 1
    starts = np.random.Generator(np.random.PCG64(0)).integers(0, max(1, num_samples - args.block), args.repeats)
    blocks = [timed(order, epoch * num_samples + start + np.arange(args.block)) for start in starts.tolist()]
    return {
        "order": name,
        "samples": num_samples,
        "block": args.block,
        "build_s": build_s,
        "seek_s": spread(seeks),
        "ns_per_index": spread([seconds / args.block * 1e9 for seconds in blocks]),
        "memory_bytes": peak_bytes() - before,
    }


def timed(order: Order, q: np.ndarray) -> float:
    began = time.perf_counter()
    order.samples(q)
    return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine() -> dict[str, str]:
    return {"platform": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}


def line(result: dict[str, Any]) -> str:
    head = f"{result['order']:<11} N={result['samples']:<14,}"
    if "skipped" in result:
        return f"{head} not measured: {result['skipped']}"
    per_index, seek = result["ns_per_index"], result["seek_s"]
    return (
        f"{head} {per_index['median']:7.1f} ns per index ({per_index['min']:.1f} to {per_index['max']:.1f})  "
        f"seek {seek['median'] * 1e3:9.3f} ms  memory +{result['memory_bytes'] / 1e6:.1f} MB"
    )


def passed_on(args: argparse.Namespace) -> list[str]:
    names = ("block", "repeats", "shard_frames", "window_shards")
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", nargs="+", default=list(ORDERS), choices=ORDERS)
    parser.add_argument("--samples", nargs="+", type=lambda text: int(float(text)), default=[10**6, 10**12])
    parser.add_argument("--block", type=int, default=4096, help="indices asked for at once")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--shard-frames", type=int, default=1_000_000, help="memory of `shards` is by the shard")
    parser.add_argument("--window-shards", type=int, default=32)
    parser.add_argument("--lerobot-limit", type=lambda text: int(float(text)), default=10**8)
    parser.add_argument("--json", help="write all results to this file")
    parser.add_argument("--one", nargs=2, metavar=("ORDER", "SAMPLES"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
