"""Draw docs/images/dataset-preview.png: the preview of a dataset recorded as docs/write-and-check.md shows.

python docs/draw_dataset_preview.py
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.preview import collect_preview
from lerobot_ray.data.preview_sheet import sheet
from lerobot_ray.data.writer import DatasetWriter
from lerobot_ray.envs.reach import ReachEnv, expert_action, tip_xy

OUT = Path(__file__).parent / "images" / "dataset-preview.png"
JOINTS = ["shoulder.pos", "elbow.pos"]
FEATURES = {
    "observation.images.top": {"dtype": "video", "shape": [192, 256, 3]},
    "observation.images.wrist": {"dtype": "video", "shape": [96, 128, 3]},
    "observation.state": {"dtype": "float32", "shape": [2], "names": JOINTS},
    "action": {"dtype": "float32", "shape": [2], "names": JOINTS},
    "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    "next.success": {"dtype": "bool", "shape": [1], "names": None},
}


def wrist_view(pixels: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """What a camera above the tip would see: the 96 × 128 pixels around it."""
    height, width, _ = pixels.shape
    x, y = tip_xy(joints)
    row, column = round(height / 2 - y * height / 2), round(width / 2 + x * height / 2)
    padded = np.pad(pixels, ((48, 48), (64, 64), (0, 0)), mode="edge")
    row, column = np.clip(row, 0, height), np.clip(column, 0, width)
    return padded[row : row + 96, column : column + 128]


def record(root: Path) -> None:
    """Some episodes of the expert."""
    robot = ReachEnv(image_hw=(192, 256))
    with DatasetWriter(root, repo_id="me/reach", fps=10, features=FEATURES, robot_type="planar arm") as writer:
        for seed in range(40):
            seen, _ = robot.reset(seed=seed)
            done = False
            while not done:
                action = expert_action(robot.state).astype(np.float32)
                after, reward, terminated, truncated, info = robot.step(action)
                writer.add_frame(
                    {
                        "observation.images.top": seen["pixels"],
                        "observation.images.wrist": wrist_view(seen["pixels"], seen["agent_pos"]),
                        "observation.state": seen["agent_pos"],
                        "action": action,
                        "next.reward": np.float32(reward),
                        "next.success": np.array(bool(info["is_success"])),
                        "task": "touch the red target",
                    }
                )
                seen, done = after, terminated or truncated
            writer.save_episode()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "reach")
        metadata = open_metadata("me/reach", root=Path(folder) / "reach")
        longest = np.argsort(metadata.episodes.length)[-2:]
        picture = Image.open(io.BytesIO(sheet(collect_preview(metadata, episodes=sorted(longest.tolist())))))
    picture.convert("RGB").quantize(200, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
