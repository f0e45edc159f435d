"""make_dataset.py ROOT: two short episodes with one camera, written by LeRobot."""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

JOINTS = ["shoulder", "elbow", "wrist", "gripper"]

dataset = LeRobotDataset.create(
    "local/tiny",
    fps=10,
    root=sys.argv[1],
    use_videos=False,
    features={
        "observation.images.front": {"dtype": "image", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (4,), "names": JOINTS},
        "action": {"dtype": "float32", "shape": (4,), "names": JOINTS},
    },
)
rng = np.random.default_rng(0)
for _ in range(2):
    for _ in range(12):
        dataset.add_frame(
            {
                "observation.images.front": rng.integers(0, 256, (64, 96, 3), dtype=np.uint8),
                "observation.state": rng.normal(size=4).astype(np.float32) * 3,
                "action": rng.normal(size=4).astype(np.float32) * 2 + 1,
                "task": "pick the cube",
            }
        )
    dataset.save_episode()
dataset.finalize()
