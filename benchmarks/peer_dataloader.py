"""How fast LeRobot's own loader feeds a training loop. Run by an interpreter that has LeRobot; prints one JSON line.

PEER/bin/python benchmarks/peer_dataloader.py --root R --batch-size 8 --workers 2 --seconds 20
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--chunk", type=int, default=100, help="action chunk, as ACT asks for")
    parser.add_argument("--backend", default="torchcodec")
    args = parser.parse_args()

    torch.set_num_threads(1)
    windows = {"action": [i / 30 for i in range(args.chunk)]}
    dataset = LeRobotDataset(
        "bench/two_cameras", root=args.root, delta_timestamps=windows, video_backend=args.backend, return_uint8=True
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=args.batch_size,
        shuffle=True,
        num_workers=args.workers,
        prefetch_factor=4 if args.workers else None,
        persistent_workers=args.workers > 0,
        multiprocessing_context="spawn" if args.workers else None,
    )

    def endless():
        while True:
            yield from loader

    batches = endless()
    for _ in range(12):  # decoders opened, workers warm
        next(batches)
    samples, started = 0, time.perf_counter()
    while time.perf_counter() - started < args.seconds:
        batch = next(batches)
        samples += len(batch["index"])
        assert batch["observation.images.front"].dtype == torch.uint8
    seconds = time.perf_counter() - started
    cameras = len(dataset.meta.camera_keys)
    print(json.dumps({"samples_per_s": samples / seconds, "camera_frames_per_s": cameras * samples / seconds}))


if __name__ == "__main__":
    main()
