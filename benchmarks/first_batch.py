"""Time to the first batch of a dataset with 100 000 episodes and 50 million frames, from opening it, through Ray.

    python benchmarks/first_batch.py --root /tmp/large --episodes 100000 --frames 500 --json out.json

The dataset is real files of the real layout, except that every episode's video is the same short one and the numbers
compress well; otherwise it would be half a terabyte. It is written once and kept in --root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

CAMERA = "observation.images.front"
EPISODES_PER_FILE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=500, help="frames per episode")
    parser.add_argument("--decoders", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not (args.root / "meta/info.json").exists():
        write_dataset(args.root, args.episodes, args.frames)

    os.environ["LEROBOT_RAY_CACHE"] = tempfile.mkdtemp(prefix="first-batch-")  # nothing converted yet
    result = {"episodes": args.episodes, "frames": args.episodes * args.frames, **measure(args)}
    shutil.rmtree(os.environ["LEROBOT_RAY_CACHE"], ignore_errors=True)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(args: argparse.Namespace) -> dict[str, float]:
    import ray

    started = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=args.decoders + 1,
        object_store_memory=1 << 30,
        include_dashboard=False,
        logging_level="ERROR",
    )
    ray_s = time.perf_counter() - started

    from lerobot_ray.data.batch import micro_batches
    from lerobot_ray.data.episodes import select_episodes
    from lerobot_ray.data.metadata import open_metadata
    from lerobot_ray.data.order import build_order
    from lerobot_ray.data.plan import StreamPlan
    from lerobot_ray.data.sample import SampleSpec
    from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions

    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    metadata = open_metadata("bench/large", root=args.root)
    selection = select_episodes(metadata.episodes)
    spec = SampleSpec(metadata, selection, offsets={"action": list(range(100))})
    order = build_order("frames", num_samples=selection.num_samples, seed=0, episode_lengths=np.diff(selection.starts))
    open_s = time.perf_counter() - started
    open_mb = (psutil.Process().memory_info().rss - before) / 2**20
    plan = StreamPlan(order=order, global_batch=8, micro_batch=8, world_size=1, rank=0, micro_batches_per_block=4)
    with BlockStream(spec, plan, options=IngestOptions(num_decoders=args.decoders)) as stream:
        next(iter(micro_batches(next(stream).columns, spec, micro_batch=8)))
        first_batch_s = time.perf_counter() - started
    ray.shutdown()
    return {"ray_init_s": ray_s, "open_s": open_s, "open_mb": open_mb, "first_batch_s": first_batch_s}


def write_dataset(root: Path, episodes: int, frames: int) -> None:
    """One written episode, its video shared by all others, tables in the real layout."""
    from lerobot_ray.data.writer import DatasetWriter

    one = root.with_name(root.name + "-one")
    shutil.rmtree(one, ignore_errors=True)
    camera = {"dtype": "video", "shape": (96, 128, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (7,), "names": [f"joint_{i}" for i in range(7)]}
    features = {CAMERA: camera, "observation.state": vector, "action": vector}
    with DatasetWriter(one, repo_id="bench/large", fps=30, features=features, codec="h264") as writer:
        for frame in range(frames):
            image = np.full((96, 128, 3), frame % 251, np.uint8)
            row = {"task": "pick", CAMERA: image, "observation.state": np.zeros(7, "f4"), "action": np.zeros(7, "f4")}
            writer.add_frame(row)
        writer.save_episode()

    root.mkdir(parents=True)
    info = json.loads((one / "meta/info.json").read_text())
    info |= {"total_episodes": episodes, "total_frames": episodes * frames, "splits": {"train": f"0:{episodes}"}}
    for name in ("meta/stats.json", "meta/tasks.parquet"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(one / name, root / name)
    shutil.copytree(one / "videos", root / "videos")
    _write_episode_table(one, root, episodes, frames)
    _write_data(one, root, episodes, frames)
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))  # last: without it the folder is no dataset
    shutil.rmtree(one)


def _write_episode_table(one: Path, root: Path, episodes: int, frames: int) -> None:
    """The first episode's row, statistics included, with numbers of its own for each; 10 000 rows a file."""
    row = pq.read_table(next((one / "meta/episodes").rglob("*.parquet")))
    for number, first in enumerate(tqdm(range(0, episodes, 10_000), desc="episodes", unit="file")):
        index = np.arange(first, min(first + 10_000, episodes))
        table = row.take(pa.array(np.zeros(len(index), np.int64)))
        data_file = index // EPISODES_PER_FILE
        for name, values in {
            "episode_index": index,
            "dataset_from_index": index * frames,
            "dataset_to_index": (index + 1) * frames,
            "data/chunk_index": data_file // 1000,
            "data/file_index": data_file % 1000,
        }.items():
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        path = root / f"meta/episodes/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)


def _write_data(one: Path, root: Path, episodes: int, frames: int) -> None:
    row = pq.read_table(next((one / "data").rglob("*.parquet")))
    per_file = EPISODES_PER_FILE * frames
    table = row.take(pa.array(np.tile(np.arange(frames), EPISODES_PER_FILE)))
    for number in tqdm(range(-(-episodes // EPISODES_PER_FILE)), desc="data", unit="file"):
        first = number * EPISODES_PER_FILE
        count = min(EPISODES_PER_FILE, episodes - first) * frames
        part = table.slice(0, count)
        index = np.arange(count) + number * per_file
        for name, values in {"index": index, "episode_index": first + np.arange(count) // frames}.items():
            part = part.set_column(part.schema.get_field_index(name), name, pa.array(values))
        path = root / f"data/chunk-{number // 1000:03d}/file-{number % 1000:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path)


if __name__ == "__main__":
    main()
