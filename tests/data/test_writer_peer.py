"""LeRobot reads every kind of dataset written here, appends to it, and we append to its own. Needs PEER_PYTHON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lerobot_ray.data.dataset import Dataset
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.storage import LocalStorage
from lerobot_ray.data.validate import validate
from lerobot_ray.data.writer import DatasetWriter
from tests.make_dataset import action_of, code_frame, depth_frame, frame_code, make_dataset, state_of

PEER_PYTHON = os.environ.get("PEER_PYTHON")
pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.slow,
    pytest.mark.skipif(not PEER_PYTHON, reason="needs PEER_PYTHON"),
]

READ = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, out, backend = sys.argv[1:]
dataset = LeRobotDataset("tests/toy", root=root, video_backend=backend, return_uint8=True)
found = {}
for row in range(len(dataset)):
    for key, value in dataset[row].items():
        found.setdefault(key, []).append(value.numpy() if hasattr(value, "numpy") else value)
arrays = {key: np.stack(values) for key, values in found.items() if isinstance(values[0], np.ndarray)}
np.savez(out, **arrays, task=np.array(found["task"]), note=np.array(found.get("note", [])),
         said=np.array([len(rows) for rows in found.get("language_events", [])]),
         stats=np.array([float(dataset.meta.stats["action"]["q99"][0])]),
         episodes=np.array([dataset.meta.total_episodes]))
"""

APPEND = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, frames = sys.argv[1:]
pixels = np.load(frames)
dataset = LeRobotDataset.resume("tests/toy", root=root)
for row, picture in enumerate(pixels):
    dataset.add_frame({"observation.images.front": picture, "observation.state": np.full(4, row, np.float32),
                       "action": np.full(4, row, np.float32), "task": "added"})
dataset.save_episode()
dataset.finalize()
"""

CREATE = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, frames = sys.argv[1:]
pixels = np.load(frames)
features = {
    "observation.images.front": {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (4,), "names": None},
    "action": {"dtype": "float32", "shape": (4,), "names": None},
}
dataset = LeRobotDataset.create("tests/toy", 10, features, root=root)
for row, picture in enumerate(pixels):
    dataset.add_frame({"observation.images.front": picture, "observation.state": np.full(4, row, np.float32),
                       "action": np.full(4, row, np.float32), "task": "recorded there"})
    if row % 5 == 4:
        dataset.save_episode()
dataset.finalize()
"""


def run_peer(code: str, *arguments: str | Path) -> None:
    command = [PEER_PYTHON, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("backend", ["torchcodec", "pyav"])
@pytest.mark.parametrize(
    "kinds",
    [
        {"codec": "av1", "files": "many", "cameras": {f"observation.images.{n}": (64, 96) for n in ("front", "wrist")}},
        {"codec": "h264", "matrix": True, "notes": True, "language": True},
        {
            "codec": "hevc",
            "image_cameras": {"observation.image": (32, 48)},
            "depth_cameras": {"observation.images.depth": (64, 64)},
            "depth_images": {"observation.depth": (32, 48)},
        },
        {
            "depth_unit": "m",
            "depth_cameras": {"observation.images.depth": (64, 64)},
            "depth_images": {"observation.depth": (32, 48)},
            "rewards": False,
        },
    ],
    ids=["av1, two cameras, many files", "h264, array, text, language", "hevc, images, depth", "depth in metres"],
)
def test_lerobot_reads_it(tmp_path, kinds, backend):
    root = make_dataset(tmp_path / "toy", **kinds)
    run_peer(READ, root, tmp_path / "items.npz", backend)
    items = np.load(tmp_path / "items.npz")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    rows = range(72)
    assert items["episodes"] == [4]
    assert np.array_equal(items["index"], rows)
    assert np.array_equal(items["observation.state"], [state_of(row) for row in rows])
    assert np.array_equal(items["action"], [action_of(row) for row in rows])
    assert items["stats"] == [np.quantile([float(action_of(row)[0]) for row in rows], 0.99)]
    camera = -1
    for name, entry in features.items():
        if entry["dtype"] not in ("video", "image"):
            continue
        camera += 1
        for row in rows:
            if entry["shape"][2] == 3:
                assert frame_code(items[name][row]) == (camera, row)
            else:
                expected = depth_frame(row, tuple(entry["shape"][:2]))
                assert np.abs(items[name][row, 0] - expected).max() < (2 if entry["dtype"] == "video" else 0.6)
    if kinds.get("matrix"):
        assert np.array_equal(items["observation.matrix"][7], (np.arange(6) + 7).reshape(2, 3))
        assert items["note"][3] == "episode 0, frame 3"
        assert items["said"][3] == 1


def test_lerobot_adds_episodes_to_ours(tmp_path):
    root = make_dataset(tmp_path / "toy", rewards=False, codec="av1")
    np.save(tmp_path / "frames.npy", np.stack([code_frame(row, (64, 96)) for row in range(72, 78)]))
    run_peer(APPEND, root, tmp_path / "frames.npy")
    errors = [p for p in validate("x", LocalStorage(root), workers=1).problems if p.severity == "error"]
    assert errors == []
    dataset = Dataset("tests/toy", root=root)
    assert len(dataset) == 78
    assert dataset[77]["task"] == "added"
    assert frame_code(dataset[0]["observation.images.front"]) == (0, 0)


def test_we_add_episodes_to_lerobots(tmp_path):
    np.save(tmp_path / "frames.npy", np.stack([code_frame(row, (64, 96)) for row in range(10)]))
    run_peer(CREATE, tmp_path / "there", tmp_path / "frames.npy")
    with DatasetWriter.resume(tmp_path / "there", codec="av1") as writer:
        for row in range(10, 17):
            writer.add_frame(
                {
                    "observation.images.front": code_frame(row, (64, 96)),
                    "observation.state": np.full(4, row, np.float32),
                    "action": np.full(4, row, np.float32),
                    "task": "recorded here",
                }
            )
        writer.save_episode()
    assert open_metadata("x", root=tmp_path / "there").tasks == ["recorded there", "recorded here"]
    assert validate("x", LocalStorage(tmp_path / "there"), workers=1).problems == []
    run_peer(READ, tmp_path / "there", tmp_path / "items.npz", "pyav")
    items = np.load(tmp_path / "items.npz")
    assert np.array_equal(items["action"][:, 0], np.arange(17))
    assert items["task"].tolist() == ["recorded there"] * 10 + ["recorded here"] * 7
    assert [frame_code(items["observation.images.front"][row]) for row in range(10, 17)] == [
        (0, r) for r in range(10, 17)
    ]
