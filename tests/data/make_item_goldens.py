"""Writes tests/data/goldens: tiny datasets made by LeRobot, and the items LeRobot reads from them.

Run with an interpreter that has LeRobot, from the root of the repository (network access is not needed):

    HF_HUB_OFFLINE=1 python tests/data/make_item_goldens.py

The committed files were made with lerobot 0.6.1, torch 2.11.0, torchcodec 0.11.1 (FFmpeg 5.1), datasets 4.8.5,
pyarrow 26.0.1, Python 3.12.1. `test_dataset.py` compares our items with them, so that it needs no LeRobot itself.

Each dataset folder `<name>/` holds `dataset/` and, per way of opening it, `<case>.npz` and `<case>.json`. Camera frames
that LeRobot gives as float32 are kept as uint8 where that loses nothing (checked here), to stay small.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

GOLDENS = Path(__file__).parent / "goldens"
H, W, FPS = 64, 96, 10
RGB = {"shape": (H, W, 3), "names": ["height", "width", "channels"]}
DEPTH = {"shape": (H, W, 1), "names": ["height", "width", "channels"]}
JOINTS = ["base.pos", "elbow.pos", "wrist.pos", "gripper.pos"]


def picture(episode: int, frame: int, tint: int) -> np.ndarray:
    """A smooth frame with a square that tells which frame of which episode it is."""
    y, x = np.mgrid[:H, :W]
    image = np.stack([x * 2 + 8, y * 3 + 20, np.full_like(x, tint)], axis=-1).clip(0, 255).astype(np.uint8)
    left, top = 4 + 6 * (frame % 14), 4 + 14 * (episode % 4)
    image[top : top + 12, left : left + 12] = (230, 40 + 50 * (episode % 4), 30)
    return image


def depth(frame: int, dtype: type) -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    millimetres = (400 + 12 * x + 9 * y + 25 * frame)[..., None]
    return millimetres.astype(dtype) if dtype is np.uint16 else (millimetres / 1000).astype(dtype)


def vector(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def create(name: str, features: dict, **options) -> LeRobotDataset:
    shutil.rmtree(GOLDENS / name, ignore_errors=True)
    root = GOLDENS / name / "dataset"
    return LeRobotDataset.create(f"golden/{name}", fps=FPS, features=features, root=root, **options)


def finish(dataset: LeRobotDataset) -> Path:
    dataset.finalize()
    shutil.rmtree(dataset.root / "images", ignore_errors=True)
    return dataset.root


def two_cameras() -> None:
    """Two AV1 cameras, rewards, two tasks (one episode changes task half way), several data and video files."""
    joints = {"dtype": "float32", "shape": (4,), "names": JOINTS}
    features = {
        "observation.images.front": {"dtype": "video", **RGB},
        "observation.images.wrist": {"dtype": "video", **RGB},
        "observation.state": joints,
        "action": joints,
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    }
    dataset = create(
        "two_cameras", features, robot_type="toy", data_files_size_in_mb=0.002, video_files_size_in_mb=0.0052
    )
    rng = np.random.default_rng(1)
    for episode, length in enumerate((7, 9, 5, 8)):
        for frame in range(length):
            task = "push the block" if episode == 0 or (episode == 2 and frame < 2) else "open the drawer"
            dataset.add_frame(
                {
                    "observation.images.front": picture(episode, frame, 60),
                    "observation.images.wrist": picture(episode, frame, 200)[::-1].copy(),
                    "observation.state": vector(rng, 4),
                    "action": vector(rng, 4),
                    "next.reward": np.array([float(frame == length - 1)], np.float32),
                    "next.done": np.array([frame == length - 1]),
                    "task": task,
                }
            )
        dataset.save_episode()
    root = finish(dataset)
    windows = {
        "observation.images.front": [-0.1, 0.0],
        "observation.images.wrist": [0.0],
        "observation.state": [-0.1, 0.0],
        "action": [i / FPS for i in range(6)],
        "next.reward": [0.0, 0.1, 0.2],
    }
    write_items("two_cameras", "plain", root, indices=[0, 6, 7, 15, 16, 20, 21, 28])
    write_items("two_cameras", "uint8", root, indices=[3, 24], return_uint8=True)
    write_items("two_cameras", "windows", root, indices=[0, 3, 6, 7, 16, 26, 28], delta_timestamps=windows)
    write_items(
        "two_cameras", "episodes", root, indices=[0, 8, 9, 16], episodes=[3, 1], delta_timestamps={"action": [0.0, 0.1]}
    )


def images() -> None:
    """PNG and TIFF images in the parquet files, 2-D and 4-D arrays, a float64, a string. Two data files."""
    features = {
        "observation.image": {"dtype": "image", **RGB},
        "observation.depth": {"dtype": "image", **DEPTH, "info": {"is_depth_map": True}},
        "observation.depth_m": {"dtype": "image", **DEPTH, "info": {"is_depth_map": True}},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": JOINTS[:3]},
        "observation.matrix": {"dtype": "float32", "shape": (2, 3), "names": None},
        "observation.tensor": {"dtype": "int64", "shape": (2, 1, 2, 3), "names": None},
        "weight": {"dtype": "float64", "shape": (1,), "names": None},
        "note": {"dtype": "string", "shape": (1,), "names": None},
        "action": {"dtype": "float32", "shape": (1,), "names": ["speed"]},
    }
    dataset = create("images", features, use_videos=False, data_files_size_in_mb=0.02)
    rng = np.random.default_rng(2)
    for episode, length in enumerate((4, 3, 5)):
        for frame in range(length):
            dataset.add_frame(
                {
                    "observation.image": picture(episode, frame, 120),
                    "observation.depth": depth(frame, np.uint16),
                    "observation.depth_m": depth(frame, np.float32),
                    "observation.state": vector(rng, 3),
                    "observation.matrix": vector(rng, 2, 3),
                    "observation.tensor": rng.integers(-9, 9, size=(2, 1, 2, 3)),
                    "weight": rng.normal(size=1),
                    "note": f"frame {frame}, größer",
                    "action": vector(rng, 1),
                    "task": "look",
                }
            )
        dataset.save_episode()
    root = finish(dataset)
    windows = {
        "observation.image": [0.0],
        "observation.depth": [-0.1, 0.0],
        "observation.matrix": [-0.2, 0.0],
        "action": [0.0, 0.1, 0.2],
    }
    write_items("images", "plain", root, indices=[0, 3, 4, 11], return_uint8=True)
    write_items("images", "windows", root, indices=[0, 6, 11], delta_timestamps=windows)
    write_items("images", "metres", root, indices=[5], depth_output_unit="m")


def dtypes() -> None:
    """Every dtype a column may have: items are float32, int64 or bool whatever it is."""
    names = ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool")
    shapes = {"scalar": (1,), "vector": (3,), "matrix": (2, 2)}
    features = {
        f"{name}.{kind}": {"dtype": name, "shape": shape, "names": None}
        for name in names
        for kind, shape in shapes.items()
    }
    dataset = create("dtypes", features)
    rng = np.random.default_rng(6)
    for _ in range(2):
        frame = {name: np.asarray(rng.random(f["shape"]) * 2).astype(f["dtype"]) for name, f in features.items()}
        dataset.add_frame({**frame, "task": "count"})
    dataset.save_episode()
    root = finish(dataset)
    write_items("dtypes", "plain", root, indices=[0, 1])
    write_items("dtypes", "windows", root, indices=[1], delta_timestamps={name: [-0.1, 0.0] for name in features})


def depth_video() -> None:
    """A lossless depth video in millimetres, one in metres, and an RGB video."""
    features = {
        "observation.images.top": {"dtype": "video", **RGB},
        "observation.images.depth": {"dtype": "video", **DEPTH, "info": {"is_depth_map": True}},
        "observation.images.depth_m": {"dtype": "video", **DEPTH, "info": {"is_depth_map": True}},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": JOINTS[:2]},
        "action": {"dtype": "float32", "shape": (2,), "names": JOINTS[:2]},
    }
    dataset = create("depth_video", features)
    rng = np.random.default_rng(3)
    for episode, length in enumerate((6, 5)):
        for frame in range(length):
            dataset.add_frame(
                {
                    "observation.images.top": picture(episode, frame, 90),
                    "observation.images.depth": depth(frame, np.uint16),
                    "observation.images.depth_m": depth(frame, np.float32),
                    "observation.state": vector(rng, 2),
                    "action": vector(rng, 2),
                    "task": "measure",
                }
            )
        dataset.save_episode()
    root = finish(dataset)
    windows = {"observation.images.depth": [-0.1, 0.0], "observation.images.depth_m": [0.0]}
    write_items("depth_video", "plain", root, indices=[0, 5, 10])
    write_items("depth_video", "windows", root, indices=[0, 6], delta_timestamps=windows)
    write_items("depth_video", "metres", root, indices=[3], depth_output_unit="m")


def language() -> None:
    """Language columns as LeRobot's annotator writes them (inferred types) and as LeRobot declares them."""
    for flavour in ("language_inferred", "language_declared"):
        features = {
            "observation.state": {"dtype": "float32", "shape": (2,), "names": JOINTS[:2]},
            "action": {"dtype": "float32", "shape": (2,), "names": JOINTS[:2]},
        }
        dataset = create(flavour, features)
        rng = np.random.default_rng(4)
        for length in (4, 3):
            for _ in range(length):
                dataset.add_frame({"observation.state": vector(rng, 2), "action": vector(rng, 2), "task": "tidy up"})
            dataset.save_episode()
        root = finish(dataset)
        add_language(root, declared=flavour == "language_declared")
        write_items(flavour, "plain", root, indices=[0, 2, 4])


def add_language(root: Path, *, declared: bool) -> None:
    from lerobot.datasets.language import language_events_arrow_type, language_persistent_arrow_type

    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    say = {"type": "function", "function": {"name": "say", "arguments": {"text": "done, größer"}}}
    calls = [json.dumps(say)] if declared else [say]
    persistent, events = [], []
    for episode, frame in zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True):
        row = {
            "role": "user",
            "content": None,
            "style": "subtask",
            "timestamp": 0.1,
            "camera": None,
            "tool_calls": None,
        }
        persistent.append([{**row, "content": f"part {part} of {episode}"} for part in range(1 + episode)])
        spoken = {"role": "assistant", "content": None, "style": None, "camera": None, "tool_calls": calls}
        events.append([spoken] if frame == 2 else [])
    kinds = (language_persistent_arrow_type(), language_events_arrow_type()) if declared else (None, None)
    for name, rows, kind in zip(("language_persistent", "language_events"), (persistent, events), kinds, strict=True):
        column = from_python(rows, kind) if kind is not None else pa.array(rows)
        table = table.append_column(name, column)
    if not declared:
        table = table.replace_schema_metadata(None)
    pq.write_table(table, path)
    info = json.loads((root / "meta/info.json").read_text())
    entry = {"dtype": "language", "shape": [1], "names": None}
    info["features"] |= {"language_persistent": entry, "language_events": entry}
    (root / "meta/info.json").write_text(json.dumps(info, indent=4, ensure_ascii=False))


def from_python(rows: list, kind: pa.DataType) -> pa.Array:
    """pa.array cannot build nested extension types: build their storage, then cast."""
    return pa.array(rows, plain(kind)).cast(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    if pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, plain(f.type), f.nullable) for f in kind])
    return kind


def minimal() -> None:
    """Written by hand: variable-size lists, no parquet metadata, the fewest keys, no stats, one mp4 of everything."""
    source = GOLDENS / "two_cameras" / "dataset"
    root = GOLDENS / "minimal" / "dataset"
    shutil.rmtree(root.parent, ignore_errors=True)
    video = "videos/observation.images.front/chunk-000/file-000.mp4"
    for path in (root / video, root / "meta/episodes/chunk-000/x", root / "data/chunk-000/x"):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / video, root / video)

    episodes = pq.read_table(source / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    place = "videos/observation.images.front/"
    kept = [row for row in episodes if row[f"{place}file_index"] == 0]
    names = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
    names += [
        "dataset_to_index",
        *(place + end for end in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")),
    ]
    rows = [{**{name: row[name] for name in names}, "tasks": ["walk"], "data/file_index": 0} for row in kept]
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")

    rng = np.random.default_rng(5)
    frames = [(row["episode_index"], frame) for row in kept for frame in range(row["length"])]
    table = {
        "observation.state": pa.array([vector(rng, 4) for _ in frames], pa.list_(pa.float32())),
        "action": pa.array([vector(rng, 4) for _ in frames], pa.list_(pa.float32())),
        "timestamp": pa.array([np.float32(frame / FPS) for _, frame in frames]),
        "frame_index": pa.array([frame for _, frame in frames]),
        "episode_index": pa.array([episode for episode, _ in frames]),
        "index": pa.array(range(len(frames))),
        "task_index": pa.array([0] * len(frames)),
    }
    pq.write_table(pa.table(table), root / "data/chunk-000/file-000.parquet")
    import pandas as pd

    pd.DataFrame({"task_index": [0]}, index=pd.Index(["walk"], name="task")).to_parquet(root / "meta/tasks.parquet")
    wanted = ("observation.images.front", *table)
    entries = json.loads((source / "meta/info.json").read_text())["features"]
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": {name: {k: v for k, v in entries[name].items() if k != "info"} for name in wanted},
        "total_episodes": len(kept),
        "total_frames": len(frames),
        "total_tasks": 1,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))
    write_items("minimal", "plain", root, indices=[0, len(frames) - 1])


def write_items(name: str, case: str, root: Path, *, indices: list[int], **options) -> None:
    dataset = LeRobotDataset(f"golden/{name}", root=root, **options)
    arrays: dict[str, np.ndarray] = {}
    described = []
    for place, index in enumerate(indices):
        item = {}
        for key, value in dataset[index].items():
            if isinstance(value, torch.Tensor):
                item[key] = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
                arrays[f"{place}/{key}"] = compact(value)
            else:
                item[key] = {"value": value}
        described.append(item)
    folder = GOLDENS / name
    np.savez_compressed(folder / f"{case}.npz", **arrays)
    document = {"options": options, "indices": indices, "length": len(dataset), "items": described}
    (folder / f"{case}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))


def compact(value: torch.Tensor) -> np.ndarray:
    """As numpy; float pixels in [0, 1] as the bytes they came from."""
    if value.dtype == torch.float32 and value.ndim >= 3 and value.shape[-3:] == (3, H, W):
        pixels = (value * 255).round().to(torch.uint8)
        assert torch.equal(pixels.to(torch.float32) / 255, value)
        return pixels.numpy()
    return value.numpy()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for make in (two_cameras, images, dtypes, depth_video, language, minimal):
        make()
    size = sum(path.stat().st_size for path in GOLDENS.rglob("*") if path.is_file())
    print(f"{size / 1e6:.2f} MB in {GOLDENS}")
