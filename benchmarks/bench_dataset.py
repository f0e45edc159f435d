"""Writes the dataset the data benchmarks read: two 640x480 cameras, AV1 as LeRobot records it, camera-like content.

python benchmarks/bench_dataset.py --root /tmp/bench --episodes 12 --frames 400
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lerobot_ray.data.writer import DatasetWriter

FPS = 30


def scene(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A still background with detail at several scales, as float RGB."""
    image = np.zeros((height, width, 3))
    for cells, strength in ((4, 60.0), (16, 30.0), (64, 12.0)):
        coarse = generator.normal(size=(cells, cells, 3))
        rows = np.linspace(0, cells - 1.001, height)
        columns = np.linspace(0, cells - 1.001, width)
        top, left = rows.astype(int), columns.astype(int)
        down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
        upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
        lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
        image += strength * (upper * (1 - down) + lower * down)
    return np.clip(image + 120, 0, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--frames", type=int, default=400, help="frames per episode")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--codec", default="av1")
    args = parser.parse_args()

    cameras = ("observation.images.front", "observation.images.wrist")
    camera = {"dtype": "video", "shape": (args.height, args.width, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (7,), "names": [f"joint_{i}" for i in range(7)]}
    features = {**dict.fromkeys(cameras, camera), "observation.state": vector, "action": vector}
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0 : args.height, 0 : args.width]
    with (
        DatasetWriter(args.root, repo_id="bench/two_cameras", fps=FPS, features=features, codec=args.codec) as writer,
        tqdm(total=args.episodes * args.frames, unit="frame") as progress,
    ):
        for _ in range(args.episodes):
            backgrounds = {key: scene(generator, args.height, args.width) for key in cameras}
            phases = generator.uniform(0, 2 * np.pi, size=(len(cameras), 3, 2))
            noise = [generator.normal(scale=2.0, size=(args.height, args.width, 1)) for _ in range(8)]
            for frame in range(args.frames):
                row = {"task": "move the blocks", "observation.state": np.sin(frame / 20 + np.arange(7)).astype("f4")}
                row["action"] = np.sin((frame + 1) / 20 + np.arange(7)).astype("f4")
                for key, phase in zip(cameras, phases, strict=True):
                    image = backgrounds[key] + noise[frame % len(noise)]
                    for (a, b), colour in zip(phase, ((220, 60, 50), (60, 160, 80), (50, 90, 200)), strict=True):
                        centre_x = args.width * (0.5 + 0.35 * np.sin(a + frame / 35))
                        centre_y = args.height * (0.5 + 0.35 * np.sin(b + frame / 50))
                        image[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (args.height / 9) ** 2] = colour
                    row[key] = np.clip(image, 0, 255).astype(np.uint8)
                writer.add_frame(row)
                progress.update()
            writer.save_episode()


if __name__ == "__main__":
    main()
