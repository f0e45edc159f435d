"""Resident memory of the consumer and its decode actors over a long stream, and what the object store spilled.

python benchmarks/data_memory.py --root R --minutes 10 --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import psutil
import ray

from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.sample import SampleSpec
from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--segment-blocks", type=int, default=500, help="small, so that segments change often")
    parser.add_argument("--micro-batches-per-block", type=int, default=2, help="small, so that blocks are many")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    ray.init(
        address="local",
        num_cpus=args.decoders + 1,
        object_store_memory=1 << 30,
        include_dashboard=False,
        logging_level="ERROR",
    )
    metadata = open_metadata("bench/two_cameras", root=args.root)
    selection = select_episodes(metadata.episodes)
    spec = SampleSpec(metadata, selection, offsets={"action": list(range(100))})
    order = build_order("frames", num_samples=selection.num_samples, seed=0, episode_lengths=np.diff(selection.starts))
    plan = StreamPlan(
        order=order,
        global_batch=8,
        micro_batch=8,
        world_size=1,
        rank=0,
        micro_batches_per_block=args.micro_batches_per_block,
    )
    series, started, blocks = [], time.monotonic(), 0
    options = IngestOptions(num_decoders=args.decoders, segment_blocks=args.segment_blocks)
    with BlockStream(spec, plan, options=options) as stream:
        while time.monotonic() - started < args.minutes * 60:
            next(stream)
            blocks += 1
            if blocks % 100 == 0:
                series.append({"minute": (time.monotonic() - started) / 60, "blocks": blocks, **resident_mb()})
                print(series[-1], flush=True)
    half = len(series) // 2
    growth = {
        name: float(np.mean([p[name] for p in series[-5:]]) - np.mean([p[name] for p in series[half : half + 5]]))
        for name in ("consumer_mb", "decoders_mb")
    }
    result = {"blocks": blocks, "steps": blocks * args.micro_batches_per_block, "second_half_growth": growth}
    result |= {"spilled_mb": spilled_mb(), "series": series}
    print(json.dumps({key: value for key, value in result.items() if key != "series"}, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    ray.shutdown()


def resident_mb() -> dict[str, float]:
    """Private memory, without what processes share: mapped files and the object store are not theirs to leak."""
    decoders = 0.0
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::MapWorker"):
            decoders += _private_mb(process)
    return {"consumer_mb": _private_mb(psutil.Process()), "decoders_mb": decoders}


def _private_mb(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().uss / 2**20
    except psutil.Error:
        return 0.0


def spilled_mb() -> float:
    """What the object store has written to disk since it started, from Ray's own summary."""
    from ray._private.internal_api import memory_summary

    text = memory_summary(address=ray.get_runtime_context().gcs_address, stats_only=True)  # not another Ray's here
    for line in text.splitlines():
        if line.startswith("Spilled "):
            return float(line.split()[1])
    return 0.0


if __name__ == "__main__":
    main()
