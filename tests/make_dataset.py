"""Tiny datasets for tests, deterministic, with frames that can be told apart after lossy coding.

    root = make_dataset(tmp_path / "toy", episodes=(15, 25), cameras={"observation.images.front": (64, 96)})
    item = Dataset(...)[20]
    assert frame_code(item["observation.images.front"]) == (0, 20)  # camera number, global row

Every camera frame is a grid of 4 × 6 blocks, each light or dark: 16 bits hold the global row, 4 the number of the
camera, 4 a check sum. `state_of(row)` and `action_of(row)` give the numbers that were written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lerobot_ray.data.writer import DatasetWriter

FPS = 10
EPISODES = (15, 25, 12, 20)
CAMERAS = {"observation.images.front": (64, 96)}
TASKS = ("pick up the cube", "place the cube in the box")
STATE_NAMES = ("shoulder.pos", "elbow.pos", "wrist.pos", "gripper.pos")

GRID_ROWS, GRID_COLUMNS = 4, 6
_BITS = GRID_ROWS * GRID_COLUMNS
_LIGHT = np.array([[235, 215, 120], [130, 220, 235], [235, 150, 200], [160, 235, 140]], np.uint8)
_DARK = np.array([[40, 30, 70], [60, 25, 20], [20, 50, 40], [25, 25, 45]], np.uint8)


def make_dataset(
    root: str | Path,
    *,
    episodes: Sequence[int] = EPISODES,
    cameras: Mapping[str, tuple[int, int]] | None = None,
    image_cameras: Mapping[str, tuple[int, int]] | None = None,
    depth_cameras: Mapping[str, tuple[int, int]] | None = None,
    depth_images: Mapping[str, tuple[int, int]] | None = None,
    depth_unit: Literal["mm", "m"] = "mm",
    codec: str = "h264",
    fps: int = FPS,
    files: Literal["one", "many"] = "one",
    state_dim: int = 4,
    action_dim: int = 4,
    tasks: Sequence[str] = TASKS,
    rewards: bool = True,
    matrix: bool = False,
    notes: bool = False,
    language: bool = False,
    repo_id: str = "tests/toy",
    robot_type: str | None = "toy",
    **limits: Any,
) -> Path:
    """Writes a dataset into `root`, which must be empty or absent, and returns it as a Path.

    Episode e has the task `tasks[e % len(tasks)]`. `files="many"` puts every episode into files of its own. Sizes of
    cameras are (height, width). `matrix`, `notes` and `language` add an array, a text and the two language columns.
    `limits` go to DatasetWriter (data_files_size_in_mb, chunks_size …).
    """
    cameras = CAMERAS if cameras is None else cameras
    cameras_by_kind = {
        ("video", False): cameras,
        ("image", False): image_cameras or {},
        ("video", True): depth_cameras or {},
        ("image", True): depth_images or {},
    }
    features = features_of(cameras_by_kind, state_dim=state_dim, action_dim=action_dim, rewards=rewards)
    if matrix:
        features["observation.matrix"] = {"dtype": "float32", "shape": [2, 3], "names": None}
    if notes:
        features["note"] = {"dtype": "string", "shape": [1], "names": None}
    if language:
        features |= {
            f"language_{kind}": {"dtype": "language", "shape": [1], "names": None} for kind in ("persistent", "events")
        }
    if files == "many":
        limits = {"data_files_size_in_mb": 1e-6, "video_files_size_in_mb": 1e-6, **limits}
    depth_dtype = np.uint16 if depth_unit == "mm" else np.float32
    with DatasetWriter(
        root, repo_id=repo_id, fps=fps, features=features, robot_type=robot_type, codec=codec, durable=False, **limits
    ) as writer:
        row = 0
        for episode, length in enumerate(episodes):
            for number in range(length):
                frame: dict[str, Any] = {
                    "observation.state": state_of(row, state_dim),
                    "action": action_of(row, action_dim),
                    "task": tasks[episode % len(tasks)],
                }
                camera = 0
                for (_, is_depth), sizes in cameras_by_kind.items():
                    for name, size in sizes.items():
                        frame[name] = (
                            depth_frame(row, size).astype(depth_dtype) if is_depth else code_frame(row, size, camera)
                        )
                        if is_depth and depth_unit == "m":
                            frame[name] = frame[name] / np.float32(1000)
                        camera += 1
                if rewards:
                    frame["next.reward"] = np.float32(number / length)
                    frame["next.done"] = np.array(number == length - 1)
                if matrix:
                    frame["observation.matrix"] = (np.arange(6, dtype=np.float32) + row).reshape(2, 3)
                if notes:
                    frame["note"] = f"episode {episode}, frame {number}"
                if language:
                    frame |= language_of(number, fps)
                writer.add_frame(frame)
                row += 1
            writer.save_episode()
    return Path(root)


def features_of(
    cameras_by_kind: Mapping[tuple[str, bool], Mapping[str, tuple[int, int]]],
    *,
    state_dim: int,
    action_dim: int,
    rewards: bool,
) -> dict[str, dict[str, Any]]:
    """The feature entries of such a dataset, without the index features."""
    features: dict[str, dict[str, Any]] = {}
    for (dtype, is_depth), sizes in cameras_by_kind.items():
        for name, (height, width) in sizes.items():
            features[name] = {
                "dtype": dtype,
                "shape": [height, width, 1 if is_depth else 3],
                "names": ["height", "width", "channels"],
                **({"info": {"is_depth_map": True}} if is_depth else {}),
            }
    for name, size in (("observation.state", state_dim), ("action", action_dim)):
        names = list(STATE_NAMES) if size == len(STATE_NAMES) else [f"joint_{number}" for number in range(size)]
        features[name] = {"dtype": "float32", "shape": [size], "names": names}
    if rewards:
        features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
        features["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    return features


def state_of(row: int, dim: int = 4) -> np.ndarray:
    """`observation.state` of global row `row`; component 0 is the row number / 100."""
    phases = np.arange(dim)
    return np.where(phases == 0, row / 100, np.sin(row / 7 + phases)).astype(np.float32)


def action_of(row: int, dim: int = 4) -> np.ndarray:
    """`action` of global row `row`; component 0 is the row number / 100."""
    phases = np.arange(dim)
    return np.where(phases == 0, row / 100, np.cos(row / 5 + phases)).astype(np.float32)


def code_frame(row: int, size: tuple[int, int], camera: int = 0) -> np.ndarray:
    """The uint8 (H, W, 3) frame of a row: see the module's docstring. At least 32 × 48 pixels."""
    bits = _bits_of(row, camera).reshape(GRID_ROWS, GRID_COLUMNS)
    height, width = size
    by_pixel = bits[np.arange(height) * GRID_ROWS // height][:, np.arange(width) * GRID_COLUMNS // width]
    return np.where(by_pixel[..., None], _LIGHT[camera % 4], _DARK[camera % 4])


def depth_frame(row: int, size: tuple[int, int]) -> np.ndarray:
    """A depth frame in millimetres, float64 (H, W): a slope from 500 mm that moves away with the row."""
    height, width = size
    return 500 + np.arange(height)[:, None] * 4 + np.arange(width)[None] * 2 + (row % 500) * 5.0


def frame_code(image: Any) -> tuple[int, int]:
    """(camera number, global row) of a decoded colour frame.

    Takes (H, W, 3) or (3, H, W), numpy or torch, uint8 or floats in [0, 1]. AssertionError for any other picture.
    """
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.max() <= 1.0:
        pixels = pixels * 255
    height, width, _ = pixels.shape
    rows = (np.arange(GRID_ROWS) * 2 + 1) * height // (2 * GRID_ROWS)
    columns = (np.arange(GRID_COLUMNS) * 2 + 1) * width // (2 * GRID_COLUMNS)
    bits = pixels.mean(axis=-1)[np.ix_(rows, columns)].ravel() > 110
    number = int((bits * (1 << np.arange(_BITS))).sum())
    row, camera = number & 0xFFFF, number >> 16 & 0xF
    assert np.array_equal(bits, _bits_of(row, camera)), f"not a coded frame: {bits.astype(int)}"
    return camera, row


def _bits_of(row: int, camera: int) -> np.ndarray:
    check = (row ^ row >> 4 ^ row >> 8 ^ row >> 12 ^ camera ^ 0b1010) & 0xF
    number = (row & 0xFFFF) | camera << 16 | check << 20
    return (number >> np.arange(_BITS) & 1).astype(bool)


def language_of(number: int, fps: int) -> dict[str, Any]:
    """The two language columns of frame `number` of an episode."""
    say = {"type": "function", "function": {"name": "say", "arguments": {"text": "Here it is."}}}
    return {
        "language_persistent": [
            {"role": "assistant", "content": "reach for the cube", "style": "subtask", "timestamp": 0.0},
            {"role": "assistant", "content": "lift the cube", "style": "subtask", "timestamp": 5 / fps},
        ],
        "language_events": [{"role": "assistant", "content": None, "style": None, "tool_calls": [say]}]
        if number == 3
        else [],
    }
