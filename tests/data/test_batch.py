"""Batches against torch's default collate of LeRobot-like items, and memory that must not be copied or written."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data import Dataset
from lerobot_ray.data.batch import as_tensor, micro_batches, task_strings, to_batch
from lerobot_ray.data.cameras import COLOURS
from lerobot_ray.data.colour import yuv420_to_rgb
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.sample import COLOURS_SUFFIX, BlockReader, SampleSpec

GOLDENS = Path(__file__).parent / "goldens"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
SAMPLES = np.array([28, 0, 7, 6, 10])


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEROBOT_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_spec(name: str, **options) -> SampleSpec:
    metadata = open_metadata(f"golden/{name}", root=GOLDENS / name / "dataset")
    return SampleSpec(metadata, select_episodes(metadata.episodes), **options)


def read_block(spec: SampleSpec, samples: np.ndarray = SAMPLES) -> dict:
    return {**BlockReader(spec).read(samples), "stream_index": np.arange(100, 100 + len(samples))}


def read_only(block: dict) -> dict:
    """As blocks come out of shared memory: read-only views of somebody else's buffer."""
    frozen = {}
    for name, value in block.items():
        if isinstance(value, np.ndarray):
            flat = np.frombuffer(pa.py_buffer(value.tobytes()), dtype=value.dtype)
            assert not flat.flags.writeable
            value = flat.reshape(value.shape)
        frozen[name] = value
    return frozen


def collated(name: str, spec: SampleSpec, samples: np.ndarray, **options) -> dict:
    deltas = {key: [frames / 10 for frames in window] for key, window in spec.offsets.items()}
    dataset = Dataset(f"golden/{name}", root=GOLDENS / name / "dataset", delta_timestamps=deltas, **options)
    items = [dataset[sample] for sample in samples.tolist()]
    languages = [key for key, feature in spec.metadata.features.items() if feature.is_language]
    batch = {key: [item.pop(key) for item in items] for key in languages}
    return {**batch, **torch.utils.data.default_collate(items)}


def assert_same_batch(ours: dict, expected: dict) -> None:
    assert set(ours) == {*expected, "stream_index"}
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert ours[key].dtype == value.dtype, key
            assert ours[key].shape == value.shape, key
            assert torch.equal(ours[key], value), key
            assert ours[key].is_contiguous(), key
        else:
            assert ours[key] == value, key


@pytest.mark.parametrize("transport", ["auto", "rgb"])
@pytest.mark.parametrize("uint8_frames", [False, True])
@pytest.mark.parametrize("offsets", [{}, {"action": range(8)}, {FRONT: [0], WRIST: [-1, 0], "observation.state": [0]}])
def test_batch_is_the_collated_items(transport, uint8_frames, offsets):
    spec = make_spec("two_cameras", transport=transport, offsets=offsets)
    batch = to_batch(read_only(read_block(spec)), spec, uint8_frames=uint8_frames)
    assert_same_batch(batch, collated("two_cameras", spec, SAMPLES, return_uint8=uint8_frames))


@pytest.mark.parametrize("name", ["images", "depth_video", "language_declared", "dtypes", "minimal"])
def test_every_kind_of_feature(name):
    samples = np.array([1, 0])
    windows = {"images": {"observation.image": [0], "observation.depth": [-1, 0]}}
    spec = make_spec(name, offsets=windows.get(name, {}))
    batch = to_batch(read_only(read_block(spec, samples)), spec, uint8_frames=True)
    assert_same_batch(batch, collated(name, spec, samples, return_uint8=True))


def test_shapes_of_an_act_batch():
    spec = make_spec("two_cameras", offsets={"action": range(8)})
    batch = to_batch(read_block(spec), spec, uint8_frames=True)
    shapes = {key: (value.dtype, tuple(value.shape)) for key, value in batch.items() if key != "task"}
    assert shapes == {
        FRONT: (torch.uint8, (5, 3, 64, 96)),
        WRIST: (torch.uint8, (5, 3, 64, 96)),
        "observation.state": (torch.float32, (5, 4)),
        "action": (torch.float32, (5, 8, 4)),
        "action_is_pad": (torch.bool, (5, 8)),
        "next.reward": (torch.float32, (5,)),
        "next.done": (torch.bool, (5,)),
        "timestamp": (torch.float32, (5,)),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), (torch.int64, (5,))),
        "stream_index": (torch.int64, (5,)),
    }
    assert batch["task"] == [
        "open the drawer",
        "push the block",
        "open the drawer",
        "push the block",
        "open the drawer",
    ]


def test_micro_batches_cover_the_block_in_order():
    spec = make_spec("two_cameras", features=("action", "index"))
    batches = list(micro_batches(read_block(spec), spec, micro_batch=2))
    assert [batch["index"].tolist() for batch in batches] == [[28, 0], [7, 6], [10]]
    assert [batch["stream_index"].tolist() for batch in batches] == [[100, 101], [102, 103], [104]]


def test_image_transforms_get_whole_windows_and_their_place_in_the_stream():
    calls = []

    def transform(frames: torch.Tensor, stream_index: int, camera: str) -> torch.Tensor:
        calls.append((tuple(frames.shape), frames.dtype, stream_index, camera))
        frames[:] = 255 - frames  # a transform may write into what it is given
        return frames

    spec = make_spec("two_cameras", offsets={WRIST: [-1, 0]}, transport="rgb")
    block = read_only(read_block(spec))
    batch = to_batch(block, spec, image_transform=transform, uint8_frames=True)
    assert calls == [((1, 3, 64, 96), torch.uint8, q, FRONT) for q in range(100, 105)] + [
        ((2, 3, 64, 96), torch.uint8, q, WRIST) for q in range(100, 105)
    ]
    plain = to_batch(block, spec, uint8_frames=True)
    for camera in (FRONT, WRIST):
        assert torch.equal(batch[camera], 255 - plain[camera])


def test_transforms_may_change_the_size_and_skip_depth():
    spec = make_spec("depth_video")
    block = read_block(spec, np.array([1, 2]))
    batch = to_batch(block, spec, image_transform=lambda frames, q, camera: frames[..., :32, :48])
    assert batch["observation.images.top"].shape == (2, 3, 32, 48)
    assert batch["observation.images.depth"].shape == (2, 1, 64, 96)


def test_videos_of_differing_colours_in_one_batch():
    spec = make_spec("two_cameras")
    block = read_block(spec)
    codes = np.array([COLOURS.index(("bt601", False)), COLOURS.index(("bt709", True)), 0, 0, 0], np.uint8)
    codes[2:] = codes[0]
    batch = to_batch({**block, FRONT + COLOURS_SUFFIX: codes}, spec, uint8_frames=True)
    packed = torch.from_numpy(block[FRONT])
    assert torch.equal(batch[FRONT][0], yuv420_to_rgb(packed[0]))
    assert torch.equal(batch[FRONT][1], yuv420_to_rgb(packed[1], matrix="bt709", full_range=True))
    assert not torch.equal(batch[FRONT][1], yuv420_to_rgb(packed[1]))


def test_read_only_frames_are_not_copied_and_live_as_long_as_their_tensor():
    buffer = pa.py_buffer(np.arange(6, dtype=np.uint8).tobytes())
    array = np.frombuffer(buffer, dtype=np.uint8).reshape(2, 3)
    tensor = as_tensor(array)
    assert tensor.data_ptr() == buffer.address
    before = sys.getrefcount(array)
    again = as_tensor(array)
    assert sys.getrefcount(array) > before
    del again
    gc.collect()
    assert sys.getrefcount(array) == before
    del array, buffer
    gc.collect()
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert as_tensor(np.frombuffer(b"", dtype=np.float32)).shape == (0,)


@pytest.mark.parametrize("name", ["two_cameras", "depth_video", "images"])
def test_processing_may_write_into_everything_but_nothing_reaches_the_block(name):
    spec = make_spec(name, offsets={"action": range(3)}, transport="rgb")
    block = read_only(read_block(spec, np.array([4, 0, 10])))
    before = {key: value.copy() for key, value in block.items() if isinstance(value, np.ndarray)}
    batch = to_batch(block, spec, uint8_frames=True)
    for value in batch.values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    for key, value in before.items():
        np.testing.assert_array_equal(block[key], value)


def test_task_numbers_without_a_task_are_refused():
    assert task_strings(np.array([1, 0]), ["a", "b"], "x/y") == ["b", "a"]
    with pytest.raises(DatasetError, match=r"task_index 2, meta/tasks\.parquet holds 2"):
        task_strings(np.array([0, 2]), ["a", "b"], "x/y")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here")
def test_batches_on_an_accelerator_are_the_same():
    spec = make_spec("two_cameras", offsets={"action": range(8), WRIST: [-1, 0]})
    block = read_only(read_block(spec))
    there, here = to_batch(block, spec, device="cuda"), to_batch(block, spec)
    for key, value in here.items():
        if isinstance(value, torch.Tensor):
            assert there[key].device.type == "cuda"
            assert torch.equal(there[key].cpu(), value), key
