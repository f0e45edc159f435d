"""Items against LeRobot 0.6.1's own, stored by make_item_goldens.py, and what bad input is answered with.

Tabular values, padding, tasks, images and depth are equal in every bit (depth videos in metres within 1e-6 m: float32
exponentials differ in the last digit between libraries). So are video frames: AV1 decoders agree exactly and PyAV's
conversion to RGB is the one torchcodec makes, so the bound below is 0 (seen with PyAV 18.1 on x86-64).
"""

from __future__ import annotations

import doctest
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot_ray.core.errors import DatasetError, FrameError
from lerobot_ray.data import Dataset
from tests.make_dataset import make_dataset

GOLDENS = Path(__file__).parent / "goldens"
CASES = sorted(str(path.relative_to(GOLDENS).with_suffix("")) for path in GOLDENS.glob("*/*.npz"))
LARGEST_PIXEL_DIFFERENCE = 0


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))


def open_golden(name: str, **options) -> Dataset:
    return Dataset(f"golden/{name}", root=GOLDENS / name / "dataset", **options)


def as_bytes(value: torch.Tensor) -> np.ndarray:
    """Float pixels as the bytes they came from."""
    pixels = (value * 255).round().to(torch.uint8)
    assert torch.equal(pixels.to(torch.float32) / 255, value)
    return pixels.numpy()


@pytest.mark.parametrize("case", CASES)
def test_items_are_lerobots(case):
    stored = json.loads((GOLDENS / f"{case}.json").read_text())
    dataset = open_golden(case.partition("/")[0], **stored["options"])
    assert len(dataset) == stored["length"]
    with np.load(GOLDENS / f"{case}.npz") as arrays:
        for place, (index, described) in enumerate(zip(stored["indices"], stored["items"], strict=True)):
            item = dataset[index]
            assert set(item) == set(described)
            for key, value in item.items():
                if "value" in described[key]:
                    assert value == described[key]["value"], key
                    continue
                assert str(value.dtype) == f"torch.{described[key]['dtype']}", key
                assert list(value.shape) == described[key]["shape"], key
                expected = arrays[f"{place}/{key}"]
                if expected.dtype == np.uint8 and expected.ndim >= 3:
                    ours = value.numpy() if value.dtype == torch.uint8 else as_bytes(value)
                    difference = np.abs(ours.astype(int) - expected.astype(int)).max()
                    assert difference <= LARGEST_PIXEL_DIFFERENCE, f"{key}: {difference}"
                elif "metres" in case and dataset.features[key].is_depth and dataset.features[key].is_video:
                    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=1e-6, err_msg=key)
                else:
                    np.testing.assert_array_equal(value.numpy(), expected, err_msg=key)


def test_every_dataset_has_goldens():
    assert {case.partition("/")[0] for case in CASES} == {
        "two_cameras",
        "images",
        "dtypes",
        "depth_video",
        "language_inferred",
        "language_declared",
        "minimal",
    }


def test_what_a_dataset_says_of_itself():
    dataset = open_golden("two_cameras", episodes=[3, 1])
    assert (len(dataset), dataset.num_frames, dataset.num_episodes, dataset.fps) == (17, 17, 2, 10)
    assert dataset.episodes == [1, 3]
    assert dataset.features["action"].shape == (4,)
    assert dataset.meta.total_episodes == 4
    text = repr(dataset)
    for part in ("golden/two_cameras", "17 frames in 2 of 4 episodes", "observation.images.wrist video [64, 96, 3]"):
        assert part in text


def test_indices_like_a_list():
    dataset = open_golden("minimal")
    assert dataset[-1]["index"] == len(dataset) - 1
    assert dataset[np.int64(3)]["index"] == 3
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match="21 frames"):
            dataset[index]
    assert [int(item["index"]) for item in dataset] == list(range(21))


def test_image_transforms_see_every_camera_but_depth():
    seen = []

    def flip(frames: torch.Tensor) -> torch.Tensor:
        seen.append((frames.dtype, tuple(frames.shape)))
        return frames.flip(-1)

    plain = open_golden("depth_video")[2]
    item = open_golden("depth_video", image_transforms=flip)[2]
    assert seen == [(torch.float32, (3, 64, 96))]
    assert torch.equal(item["observation.images.top"], plain["observation.images.top"].flip(-1))
    assert torch.equal(item["observation.images.depth"], plain["observation.images.depth"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_works_in_dataloader_workers():
    dataset = open_golden("two_cameras", delta_timestamps={"action": [0.0, 0.1]})
    expected = dataset[9]["observation.images.front"]  # files are open in this process when the workers are forked
    loader = torch.utils.data.DataLoader(dataset, batch_size=7, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(29))
    assert torch.equal(batches[1]["observation.images.front"][2], expected)
    assert batches[0]["task"] == ["push the block"] * 7


def test_pickles_without_its_open_files():
    dataset = open_golden("two_cameras")
    expected = dataset[5]
    again = pickle.loads(pickle.dumps(dataset))[5]
    assert torch.equal(again["observation.images.front"], expected["observation.images.front"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delta_timestamps": {"observation.images.frnt": [0.0]}}, "Did you mean observation.images.front"),
        ({"delta_timestamps": {"zzz": [0.0]}}, "has no feature zzz. It has: observation.images.front"),
        ({"delta_timestamps": {"action": [0.0, 0.05]}}, "not a multiple of 1/10 s"),
        ({"episodes": [0, 4]}, "names 4, and this dataset has 4 episodes"),
        ({"episodes": [-1]}, "names -1"),
        ({"episodes": [1, 1]}, "more than once"),
        ({"episodes": []}, "no episodes are left"),
        ({"depth_output_unit": "inch"}, "depth_output_unit is 'inch'"),
    ],
)
def test_bad_input_gets_one_clear_error(options, says):
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        open_golden("two_cameras", **options)


def test_missing_files_are_named_when_opening(tmp_path):
    root = shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset")
    (root / "videos/observation.images.wrist/chunk-000/file-001.mp4").unlink()
    assert len(Dataset("x/y", root=root, episodes=[0, 1])) == 16
    with pytest.raises(DatasetError, match=r"wrist/chunk-000/file-001\.mp4 missing"):
        Dataset("x/y", root=root)


def test_a_frame_that_cannot_be_had_names_everything(tmp_path):
    root = shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset")
    path = root / "videos/observation.images.front/chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FrameError) as caught:
        Dataset("me/broken", root=root)[20]
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.episode, error.camera) == (2, "observation.images.front")
    for part in ("me/broken", "episode 2", "observation.images.front", "file-000.mp4"):
        assert part in str(error)


def test_tolerance_decides_which_frames_count(tmp_path):
    """Timestamps 40 ms off the video's grid: refused, unless the tolerance says otherwise."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = shutil.copytree(GOLDENS / "minimal" / "dataset", tmp_path / "dataset")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("timestamp")
    late = pa.array(table["timestamp"].to_numpy() + np.float32(0.04))
    pq.write_table(table.set_column(at, "timestamp", late), path)
    with pytest.raises(FrameError, match="tolerance"):
        Dataset("x/y", root=root)[3]
    expected = open_golden("minimal")[3]["observation.images.front"]
    assert torch.equal(Dataset("x/y", root=root, tolerance_s=0.05)[3]["observation.images.front"], expected)


def test_the_page_about_data_is_true(tmp_path, monkeypatch):
    make_dataset(tmp_path / "toy", files="many")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs/data.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 10
    assert not failed
