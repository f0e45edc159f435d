"""How long it takes to open a large dataset's metadata, and how much memory stays.

python benchmarks/metadata_open.py --episodes 100000 --frames 500 --json

The metadata is synthetic but shaped as LeRobot writes it: per-episode statistics of every feature beside the few
columns that are needed, and one task per thousand episodes. No frames are written. Each run is a fresh process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAMERAS = ("observation.images.front", "observation.images.wrist")
STATISTICS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
VECTORS = {"observation.state": 14, "action": 14, "timestamp": 1, "frame_index": 1, "episode_index": 1, "index": 1}
EPISODES_PER_FILE = 10_000
EPISODES_PER_DATA_FILE, EPISODES_PER_VIDEO_FILE = 2_000, 200


def write_metadata(root: Path, episodes: int, frames: int) -> None:
    """The `meta` folder of a dataset of `episodes` episodes of `frames` frames."""
    generator = np.random.default_rng(0)
    tasks = [f"task number {number}" for number in range(max(1, episodes // 1000))]
    for start in range(0, episodes, EPISODES_PER_FILE):
        numbers = np.arange(start, min(start + EPISODES_PER_FILE, episodes))
        file = start // EPISODES_PER_FILE
        path = root / f"meta/episodes/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {**places(numbers, frames, tasks), **statistics(generator, len(numbers))}
        pq.write_table(pa.table(columns), path, compression="snappy")
    (root / "meta/info.json").write_text(json.dumps(info(episodes, frames, len(tasks))))
    pq.write_table(pa.table({"task_index": range(len(tasks)), "task": tasks}), root / "meta/tasks.parquet")


def places(numbers: np.ndarray, frames: int, tasks: list[str]) -> dict[str, pa.Array]:
    data_file, video_file = numbers // EPISODES_PER_DATA_FILE, numbers // EPISODES_PER_VIDEO_FILE
    columns = {
        "episode_index": numbers,
        "tasks": [[tasks[number % len(tasks)]] for number in numbers],
        "length": np.full(len(numbers), frames),
        "data/chunk_index": data_file // 1000,
        "data/file_index": data_file % 1000,
        "dataset_from_index": numbers * frames,
        "dataset_to_index": (numbers + 1) * frames,
    }
    for camera in CAMERAS:
        seconds = (numbers % EPISODES_PER_VIDEO_FILE) * frames / 30
        columns |= {
            f"videos/{camera}/chunk_index": video_file // 1000,
            f"videos/{camera}/file_index": video_file % 1000,
            f"videos/{camera}/from_timestamp": seconds,
            f"videos/{camera}/to_timestamp": seconds + frames / 30,
        }
    return {name: pa.array(values) for name, values in columns.items()}


def statistics(generator: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    columns = {}
    for statistic in STATISTICS:
        for name, size in VECTORS.items():
            columns[f"stats/{name}/{statistic}"] = nested(generator.normal(size=(rows, size)))
        for camera in CAMERAS:
            columns[f"stats/{camera}/{statistic}"] = nested(generator.random(size=(rows, 3, 1, 1)))
    return columns


def nested(values: np.ndarray) -> pa.Array:
    """An array as (nested) variable-size lists of doubles."""
    column = pa.array(values.reshape(-1))
    for side in reversed(values.shape[1:]):
        column = pa.ListArray.from_arrays(pa.array(np.arange(0, len(column) + 1, side, dtype=np.int32)), column)
    return column


def info(episodes: int, frames: int, tasks: int) -> dict:
    camera = {"dtype": "video", "shape": [480, 640, 3], "names": ["height", "width", "channels"]}
    features: dict = dict.fromkeys(CAMERAS, camera)
    for name, size in {**VECTORS, "task_index": 1}.items():
        dtype = "int64" if name.endswith("index") else "float32"
        features[name] = {"dtype": dtype, "shape": [size], "names": None}
    return {
        "codebase_version": "v3.0",
        "fps": 30,
        "features": features,
        "total_episodes": episodes,
        "total_frames": episodes * frames,
        "total_tasks": tasks,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(root: str) -> dict[str, float]:
    """Runs in a fresh process: what any dataset costs (imports, thread pools) first, then the clock."""
    import pickle
    import time

    from lerobot_ray.data.episodes import select_episodes
    from lerobot_ray.data.metadata import open_metadata

    with tempfile.TemporaryDirectory() as tiny:
        write_metadata(Path(tiny), episodes=10, frames=10)
        open_metadata("bench/tiny", root=tiny)
    before_mb, began = resident_mb(), time.perf_counter()
    metadata = open_metadata("bench/large", root=root)
    opened = time.perf_counter()
    selection = select_episodes(metadata.episodes)
    _ = metadata.episodes.first_task
    ready = time.perf_counter()
    pickled = pickle.dumps(metadata)
    return {
        "open_s": opened - began,
        "select_s": ready - opened,
        "resident_mb": resident_mb() - before_mb,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before_mb,
        "pickled_mb": len(pickled) / 1e6,
        "frames": selection.num_samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=500, help="frames per episode")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--root", type=Path, help="keep the metadata here, and use what is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = args.root or Path(scratch)
        if not (root / "meta/info.json").exists():
            write_metadata(root, args.episodes, args.frames)
        command = [sys.executable, __file__, "--measure", str(root)]
        runs = [json.loads(subprocess.check_output(command, text=True)) for _ in range(args.runs)]
        on_disk_mb = sum(path.stat().st_size for path in (root / "meta").rglob("*.parquet")) / 1e6
    result = {
        "benchmark": "metadata_open",
        "episodes": args.episodes,
        "frames_per_episode": args.frames,
        "metadata_on_disk_mb": on_disk_mb,
        "runs": runs,
        "python": platform.python_version(),
        "pyarrow": pa.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{args.episodes} episodes, {runs[0]['frames']} frames, {on_disk_mb:.0f} MB of metadata on disk")
    for run in runs:
        print(
            f"open {run['open_s']:.2f} s, select {run['select_s']:.2f} s, resident +{run['resident_mb']:.0f} MB, "
            f"peak +{run['peak_mb']:.0f} MB, pickled {run['pickled_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
