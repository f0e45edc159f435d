"""Camera frames per second from a dataset to torch batches in the consumer, beside the limit and LeRobot's loader.

    python benchmarks/data_throughput.py --root R --batch-size 8 --decoders 2 --order frames --seconds 20 \\
        --peer-python PEER/bin/python --json out.json

One run measures, one after the other so that they do not disturb each other, `--repeats` times over:

- ours: BlockStream through Ray Data, blocks cut into batches of torch tensors (packed YUV420, uint8), after warm-up;
- ours to RGB: the same, with the colour conversion done by the consumer on its CPU (a GPU does it in passing);
- the decode limit: as many bare processes decoding the same frames in the same order, nothing converted or copied;
- the peer: LeRobot's DataLoader with as many worker processes, if --peer-python names an interpreter that has it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import av
import numpy as np
import psutil

from lerobot_ray.data.camera_cache import CacheSettings
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.sample import SampleSpec
from lerobot_ray.on_ray.cluster import NOT_RECORDED, STORE_PER_WORKER_BYTES
from lerobot_ray.on_ray.ingest import BLOCK_BYTES, micro_batches_per_block

CHUNK = 100
Request = tuple[str, np.ndarray]
"""One mp4 and the times wanted from it, ascending."""


def main() -> None:
    args = parse_args()
    spec, plan = build(args)
    metadata = spec.metadata
    cameras = len(metadata.video_keys)
    rounds: dict[str, list[float]] = {"ours": [], "ours_rgb": [], "limit": [], "peer": []}
    shares: list[dict[str, float]] = []
    for _ in range(args.repeats):
        rounds["limit"].append(decode_limit(spec, plan, args))
        ours, wait, cpu_s = in_own_process(ours_through_ray, spec, plan, args, False)
        rounds["ours"].append(ours * cameras)
        shares.append({who: round(1000 * seconds / cameras, 3) for who, seconds in cpu_s.items()})
        rounds["ours_rgb"].append(in_own_process(ours_through_ray, spec, plan, args, True)[0] * cameras)
        if args.peer_python:
            rounds["peer"].append(peer(args))
        print({key: [round(x) for x in values] for key, values in rounds.items()}, f"wait {wait:.2f}", flush=True)

    median = {key: statistics.median(values) if values else None for key, values in rounds.items()}
    result: dict[str, Any] = {
        "samples_per_s": median["ours"] / cameras,
        "camera_frames_per_s": median["ours"],
        "rgb_camera_frames_per_s": median["ours_rgb"],
        "decode_limit_camera_frames_per_s": median["limit"],
        "peer_camera_frames_per_s": median["peer"],
        "share_of_limit": median["ours"] / median["limit"],
        "times_peer": median["ours"] / median["peer"] if median["peer"] else None,
        "times_peer_rgb": median["ours_rgb"] / median["peer"] if median["peer"] else None,
        "rounds": rounds,
        "cpu_ms_per_camera_frame": shares,
        "settings": {key: str(value) for key, value in vars(args).items()},
        "cpus": os.cpu_count(),
    }
    print(json.dumps({k: v for k, v in result.items() if k not in ("settings",)}, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--order", choices=("frames", "shards", "sequential"), default="frames")
    parser.add_argument("--shard-frames", type=int, default=256)
    parser.add_argument("--window-shards", type=int, default=4)
    parser.add_argument("--cache", choices=("none", "memory", "disk"), default="none")
    parser.add_argument("--cache-gb", type=float, default=6.0)
    parser.add_argument("--cache-dir", type=Path, default=None)
    parser.add_argument("--warm", action="store_true", help="one full epoch first, so that a cache is full")
    parser.add_argument("--block-mb", type=int, default=BLOCK_BYTES >> 20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def build(args: argparse.Namespace) -> tuple[SampleSpec, StreamPlan]:
    metadata = open_metadata("bench/two_cameras", root=args.root)
    selection = select_episodes(metadata.episodes)
    spec = SampleSpec(
        metadata=metadata,
        selection=selection,
        offsets={"action": list(range(CHUNK))},
        cache=cache_settings(args),
    )
    order = build_order(
        args.order,
        num_samples=selection.num_samples,
        seed=0,
        episode_lengths=selection.lengths,
        shard_frames=args.shard_frames,
        window_shards=args.window_shards,
    )
    plan = StreamPlan(
        order=order,
        global_batch=args.batch_size,
        micro_batch=args.batch_size,
        world_size=1,
        rank=0,
        start=0,
        micro_batches_per_block=micro_batches_per_block(spec, args.batch_size, most_bytes=args.block_mb << 20),
    )
    return spec, plan


def cache_settings(args: argparse.Namespace) -> CacheSettings | None:
    """The cache asked for; the `shards` order always has one, to decode the next window into."""
    kind = "memory" if args.order == "shards" and args.cache == "none" else args.cache
    if kind == "none":
        return None
    eviction = "lru" if args.order == "shards" else "keep"
    return CacheSettings(kind, int(args.cache_gb * 1e9), directory=args.cache_dir, eviction=eviction)


def in_own_process(measure: Callable[..., Any], *args: Any) -> Any:
    """What `measure` gives in a fresh process: nothing of one measurement's Ray is there in the next."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, args)


def ours_through_ray(
    spec: SampleSpec, plan: StreamPlan, args: argparse.Namespace, to_rgb: bool
) -> tuple[float, float, dict[str, float]]:
    """Samples per second, the share of the time spent waiting for data, and processor seconds per sample by who spent
    them."""
    os.environ.update(NOT_RECORDED)  # before Ray is imported
    import ray
    import torch

    from lerobot_ray.data.batch import as_tensor, micro_batches
    from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions

    torch.set_num_threads(1)
    cache_dir = None
    if spec.cache is not None and spec.cache.directory is None:  # an empty one: what the last round left is not ours
        cache_dir = tempfile.TemporaryDirectory(dir="/dev/shm" if spec.cache.kind == "memory" else None)
        spec = dataclasses.replace(spec, cache=dataclasses.replace(spec.cache, directory=Path(cache_dir.name)))
    ray.init(
        address="local",
        num_cpus=args.decoders + 1,
        object_store_memory=STORE_PER_WORKER_BYTES,
        include_dashboard=False,
        logging_level="ERROR",
    )
    try:
        with BlockStream(spec, plan, options=IngestOptions(num_decoders=args.decoders)) as stream:
            block_samples = plan.block(0).sample_ids.size
            warm_blocks = 4 + STORE_PER_WORKER_BYTES // (spec.sample_bytes * block_samples)  # its memory is used again
            if args.warm:
                warm_blocks = max(warm_blocks, -(-spec.selection.num_samples // block_samples))
            for _ in range(warm_blocks):
                next(stream)
            samples, started, waited, spent = 0, time.perf_counter(), stream.wait_s, processor_s()
            while time.perf_counter() - started < args.seconds:
                columns = next(stream).columns
                if to_rgb:
                    for batch in micro_batches(columns, spec, micro_batch=args.batch_size, uint8_frames=True):
                        samples += len(batch["index"])
                else:
                    tensors = [as_tensor(value) for value in columns.values() if isinstance(value, np.ndarray)]
                    for start in range(0, plan.block(0).sample_ids.size, args.batch_size):
                        batch = [tensor[start : start + args.batch_size] for tensor in tensors]
                        samples += len(batch[0])
            seconds = time.perf_counter() - started
            per_sample = {who: (total - spent[who]) / samples for who, total in processor_s().items()}
            return samples / seconds, (stream.wait_s - waited) / seconds, per_sample
    finally:
        ray.shutdown()
        if cache_dir is not None:
            cache_dir.cleanup()


def processor_s() -> dict[str, float]:
    """Processor seconds so far of this process and those it started."""
    found = {"decode actors": 0.0, "consumer": sum(psutil.Process().cpu_times()[:2]), "the rest of Ray": 0.0}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            who = "decode actors" if process.name().startswith("ray::MapWorker") else "the rest of Ray"
            found[who] += sum(process.cpu_times()[:2])
    return found


# The limit


def requests_of(spec: SampleSpec, plan: StreamPlan, number: int) -> list[Request]:
    """The frames block `number` needs, once each, file by file in ascending time."""
    positions, rows = spec.selection.locate(np.unique(plan.block(number).sample_ids))
    return requests_of_rows(spec, positions, rows)


def requests_of_rows(spec: SampleSpec, positions: np.ndarray, rows: np.ndarray) -> list[Request]:
    metadata = spec.metadata
    episodes = spec.selection.episodes[positions]
    seconds = (rows - metadata.episodes.from_index[episodes]) / metadata.fps
    requests = []
    for key in metadata.video_keys:
        places = metadata.episodes.video[key]
        files = np.stack([places.chunk[episodes], places.file[episodes]], axis=1)
        times = places.from_s[episodes] + seconds
        for chunk, file in np.unique(files, axis=0):
            wanted = np.sort(times[(files == (chunk, file)).all(axis=1)])
            requests.append((str(metadata.storage.local(metadata.video_path(key, int(chunk), int(file)))), wanted))
    return requests


def window_requests(spec: SampleSpec, plan: StreamPlan, first_window: int, count: int) -> list[list[Request]]:
    """What reading `shards` in sequence decodes: whole windows, each frame once, in storage order."""
    requests = []
    for window in range(first_window, first_window + count):
        samples = np.concatenate([np.arange(r.start, r.stop) for r in plan.order.window_ranges(0, window)])
        requests.append(requests_of_rows(spec, *spec.selection.locate(np.sort(samples))))
    return requests


def decode_limit(spec: SampleSpec, plan: StreamPlan, args: argparse.Namespace) -> float:
    """Camera frames per second of `--decoders` bare processes, summed."""
    if args.order == "shards":
        work = window_requests(spec, plan, 0, 2 * args.decoders)
    else:
        work = [requests_of(spec, plan, number) for number in range(40)]
    with multiprocessing.get_context("spawn").Pool(args.decoders) as pool:
        pool.map(_nothing, range(args.decoders))
        shares = [(work[k :: args.decoders], args.seconds) for k in range(args.decoders)]
        return sum(pool.starmap(bare_decode, shares, chunksize=1))


def _nothing(_: int) -> None:
    pass


def bare_decode(work: list[list[Request]], seconds: float) -> float:
    """Wanted frames per second of one process: containers open, one thread, no conversion, no copy."""
    decoders: dict[str, Any] = {}
    frames, started = 0, time.perf_counter()
    while True:
        for requests in work:
            for path, times in requests:
                if path not in decoders:
                    container = av.open(path)
                    stream = container.streams.video[0]
                    stream.codec_context.thread_count = 1
                    decoders[path] = (container, stream)
                frames += _decode_times(*decoders[path], times)
                if time.perf_counter() - started > seconds:
                    return frames / (time.perf_counter() - started)


def _decode_times(container: Any, stream: Any, times: np.ndarray) -> int:
    rate, base = float(stream.average_rate), float(stream.time_base)
    found, decoded, at = 0, None, -1e9
    for wanted in times:
        if not 0 <= wanted - at < 2.5 / rate:  # AV1 as recorded has a key frame every second frame
            container.seek(round(wanted / base), stream=stream, backward=True)
            decoded = container.decode(stream)
        while at < wanted - 0.5 / rate or at > wanted + 0.5 / rate:
            at = next(decoded).pts * base
        found += 1
    return found


def peer(args: argparse.Namespace) -> float:
    command = [args.peer_python, str(Path(__file__).with_name("peer_dataloader.py")), "--root", str(args.root)]
    command += ["--batch-size", str(args.batch_size), "--workers", str(args.decoders), "--seconds", str(args.seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.strip().splitlines()[-1])["camera_frames_per_s"]


if __name__ == "__main__":
    main()
