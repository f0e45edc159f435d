"""Blocks against the reference (`Dataset`, itself held against LeRobot), and what the hot path must not do twice."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import DatasetError, FrameError
from lerobot_ray.data import Dataset, cameras
from lerobot_ray.data.camera_cache import CacheSettings
from lerobot_ray.data.cameras import COLOURS
from lerobot_ray.data.colour import yuv420_to_rgb
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.images import decode_image
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.sample import COLOURS_SUFFIX, BlockReader, SampleSpec
from lerobot_ray.data.video import VideoReader

GOLDENS = Path(__file__).parent / "goldens"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
MIXED = np.array([28, 0, 7, 6, 7, 20, 21, 16])
"""Rows of all data and video files of two_cameras, unordered, one twice."""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEROBOT_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_spec(name: str = "two_cameras", *, root: Path | None = None, selection=None, **options) -> SampleSpec:
    metadata = open_metadata(f"golden/{name}", root=root or GOLDENS / name / "dataset")
    return SampleSpec(metadata, selection or select_episodes(metadata.episodes), **options)


def reference(name: str, offsets: dict, **options) -> Dataset:
    deltas = {key: [frames / 10 for frames in window] for key, window in offsets.items()}
    options = {"return_uint8": True, **options}
    return Dataset(f"golden/{name}", root=GOLDENS / name / "dataset", delta_timestamps=deltas, **options)


def as_rgb(block: dict, camera: str) -> np.ndarray:
    frames = block[camera]
    if camera + COLOURS_SUFFIX not in block:
        return frames
    (colour,) = np.unique(block[camera + COLOURS_SUFFIX])
    matrix, full_range = COLOURS[colour]
    return yuv420_to_rgb(torch.from_numpy(frames), matrix=matrix, full_range=full_range).numpy()


def assert_same_as_items(spec: SampleSpec, block: dict, dataset: Dataset, samples: np.ndarray) -> None:
    for place, sample in enumerate(samples.tolist()):
        item = dataset[sample]
        for feature in spec.specs:
            name = feature.name
            ours = (as_rgb(block, name) if feature.is_camera else block[name])[place]
            theirs = item[name]
            if feature.is_image and not feature.is_depth:
                theirs = (theirs * 255).round().to(torch.uint8)
            if feature.is_video and len(spec.offsets.get(name, ())) == 1:
                ours = ours[0]
            if isinstance(theirs, torch.Tensor):
                np.testing.assert_array_equal(ours, theirs.numpy(), err_msg=name)
                assert ours.dtype == theirs.numpy().dtype, name
            else:
                assert ours == theirs, name
            if name in spec.offsets:
                np.testing.assert_array_equal(block[f"{name}_is_pad"][place], item[f"{name}_is_pad"])


OFFSETS = [
    {},
    {"action": range(6), "next.reward": [0, 1, 2]},
    {FRONT: [-1, 0], WRIST: [0], "observation.state": [-1, 0], "action": range(-1, 7)},
    {FRONT: [-3, 0, 0, 12]},
]


@pytest.mark.parametrize("transport", ["auto", "yuv420", "rgb"])
@pytest.mark.parametrize("offsets", OFFSETS)
def test_blocks_hold_what_items_hold(transport, offsets):
    spec = make_spec(offsets=offsets, transport=transport)
    block = BlockReader(spec).read(MIXED)
    packed = transport != "rgb"
    time = (len(offsets[FRONT]),) if FRONT in offsets else ()
    assert block[FRONT].shape == (8, *time, *((96, 96) if packed else (3, 64, 96)))
    assert (FRONT + COLOURS_SUFFIX in block) == packed
    assert_same_as_items(spec, block, reference("two_cameras", offsets), MIXED)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.integers(0, 28), min_size=1, max_size=12),
    window=st.lists(st.integers(-9, 9), min_size=1, max_size=4),
)
def test_any_samples_and_windows(rows, window):
    offsets = {FRONT: window, "action": window}
    spec = make_spec(offsets=offsets, features=(FRONT, "action", "index"))
    samples = np.array(rows)
    block = BlockReader(spec).read(samples)
    episodes = spec.metadata.episodes
    numbers = episodes.episode_of_rows(samples)
    wanted = np.clip(
        samples[:, None] + window, episodes.from_index[numbers][:, None], episodes.to_index[numbers][:, None] - 1
    )
    every = BlockReader(make_spec(features=(FRONT, "action"))).read(np.arange(29))
    np.testing.assert_array_equal(block[FRONT], every[FRONT][wanted])
    np.testing.assert_array_equal(block["action"], every["action"][wanted])


@pytest.mark.parametrize(
    "name", ["images", "dtypes", "depth_video", "language_inferred", "language_declared", "minimal"]
)
def test_every_kind_of_feature(name):
    spec = make_spec(name)
    samples = np.array([spec.selection.num_samples - 1, 0, 1, 0])
    assert_same_as_items(spec, BlockReader(spec).read(samples), reference(name, {}), samples)


def test_windows_of_images_depth_and_strings():
    offsets = {"observation.image": [0], "observation.depth": [-1, 0], "note": [-1, 0], "observation.matrix": [0, 1]}
    spec = make_spec("images", offsets=offsets)
    block = BlockReader(spec).read(np.array([4, 11]))
    assert block["observation.image"].shape == (2, 1, 3, 64, 96)
    assert block["observation.image"].dtype == np.uint8
    assert block["observation.depth"].shape == (2, 2, 1, 64, 96)
    assert block["observation.depth"].dtype == np.float32
    assert block["observation.matrix"].shape == (2, 2, 2, 3)
    assert block["note"] == [["frame 0, größer"] * 2, ["frame 3, größer", "frame 4, größer"]]


def test_selected_episodes_and_dropped_frames():
    metadata = open_metadata("x/y", root=GOLDENS / "two_cameras" / "dataset")
    selection = select_episodes(metadata.episodes, episodes=[3, 1], drop_n_last_frames=4)
    spec = make_spec(selection=selection, offsets={"action": range(9)}, features=("action", "index"))
    assert selection.num_samples == 5 + 4
    block = BlockReader(spec).read(np.arange(9))
    assert block["index"].tolist() == [7, 8, 9, 10, 11, 21, 22, 23, 24]
    assert block["action_is_pad"].sum(axis=1).tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    assert set(block) == {"action", "action_is_pad", "index", "task_index"}, "only what was asked for"


def test_frames_wanted_twice_are_decoded_once(monkeypatch):
    wanted = []
    read = VideoReader.read

    def count(self, path, times_s, **options):
        fed = self.packets_fed
        frames = read(self, path, times_s, **options)
        wanted.append((path.parts[-3], path.name, self.packets_fed - fed))
        return frames

    monkeypatch.setattr(VideoReader, "read", count)
    spec = make_spec(offsets={FRONT: [-1, 0]}, features=(FRONT,))
    BlockReader(spec).read(np.array([3, 28, 2, 3, 3, 27, 0]))
    # Each file once: frames 0 to 3 of the first, and 5 to 7 of the second with the key frame before them.
    assert wanted == [(FRONT, "file-000.mp4", 4), (FRONT, "file-001.mp4", 4)]


def test_images_wanted_twice_are_decoded_once(monkeypatch):
    decoded = []
    monkeypatch.setattr(cameras, "decode_image", lambda *a, **kind: decoded.append(0) or decode_image(*a, **kind))
    spec = make_spec("images", features=("observation.image",), offsets={"observation.image": [-1, 0]})
    block = BlockReader(spec).read(np.array([3, 2, 3, 0]))
    assert len(decoded) == 4
    assert_same_as_items(spec, block, reference("images", spec.offsets), np.array([3, 2, 3, 0]))


def test_a_video_that_cannot_be_packed_travels_as_rgb(tmp_path):
    """One file of the camera becomes 4:4:4: from then on all its frames are RGB, the other camera's stay packed."""
    import av

    root = shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset")
    path = root / "videos" / FRONT / "chunk-000/file-001.mp4"
    with av.open(str(path)) as source:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        for picture in pictures:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p")))
        target.mux(stream.encode())
    reader = BlockReader(make_spec(root=root))
    assert reader.read(np.array([0]))[FRONT].shape == (1, 96, 96)
    mixed = reader.read(np.array([0, 28]))
    assert mixed[FRONT].shape == (2, 3, 64, 96)
    assert mixed[WRIST].shape == (2, 96, 96)
    assert reader.read(np.array([0]))[FRONT].shape == (1, 3, 64, 96)
    item = reference("two_cameras", {})[0]
    np.testing.assert_array_equal(mixed[FRONT][0], item[FRONT].numpy())


def test_the_episode_at_fault_is_named(tmp_path):
    """Of several episodes in one file, the one whose frames are gone: episode 2 ends after the truncated file."""
    root = shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset")
    path = root / "videos" / FRONT / "chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:3000])
    reader = BlockReader(make_spec(root=root))
    with pytest.raises(FrameError) as caught:
        reader.read(np.array([20, 0, 1]))
    assert (caught.value.episode, caught.value.camera) == (2, FRONT)
    assert "golden/two_cameras" in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(reader.read(np.array([0, 1]))[FRONT]) == 2, "the reader goes on after an error"


def test_unknown_features_are_refused():
    with pytest.raises(DatasetError, match=r"no feature actoin\. Did you mean action"):
        make_spec(offsets={"actoin": [0]})
    with pytest.raises(DatasetError, match="no feature xyz"):
        make_spec(features=("xyz",))


def test_sizes_are_known_before_reading():
    spec = make_spec(offsets={FRONT: [-1, 0], "action": range(6)})
    block = BlockReader(spec).read(np.arange(4))
    total = sum(v.nbytes for k, v in block.items() if not k.endswith(("_is_pad", COLOURS_SUFFIX)))
    assert spec.sample_bytes == total // 4


def test_specs_travel_and_readers_need_no_torch():
    spec = pickle.loads(pickle.dumps(make_spec(offsets={"action": [0, 1]})))
    np.testing.assert_array_equal(BlockReader(spec).read(np.array([3]))["index"], [3])
    code = "import sys, lerobot_ray.data.sample; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prefetch_names_the_files(monkeypatch):
    asked = []
    spec = make_spec()
    monkeypatch.setattr(type(spec.metadata.storage), "prefetch", lambda self, paths: asked.extend(paths))
    BlockReader(spec).prefetch(np.array([28, 0]))
    assert sorted(asked) == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-002.parquet",
        f"videos/{FRONT}/chunk-000/file-000.mp4",
        f"videos/{FRONT}/chunk-000/file-001.mp4",
        f"videos/{WRIST}/chunk-000/file-000.mp4",
        f"videos/{WRIST}/chunk-000/file-001.mp4",
    ]


@pytest.fixture
def settings(tmp_path) -> CacheSettings:
    return CacheSettings("disk", budget_bytes=100_000_000, directory=tmp_path / "frames")


def forbid_decoding(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("decoded although it is in the cache")

    monkeypatch.setattr(VideoReader, "read", refuse)
    monkeypatch.setattr(cameras, "decode_image", refuse)


@pytest.mark.parametrize(
    ("name", "transport"),
    [("two_cameras", "auto"), ("two_cameras", "rgb"), ("depth_video", "auto"), ("images", "auto")],
)
def test_cached_frames_are_the_decoded_ones(name, transport, settings, monkeypatch):
    """Through one reader that half filled the cache, and through another that finds everything."""
    plain = BlockReader(make_spec(name, transport=transport))
    samples = np.array([9, 0, 3, 3, 10, 1])
    expected = plain.read(samples)
    reader = BlockReader(make_spec(name, transport=transport, cache=settings))
    reader.read(np.array([3, 9, 2]))
    with monkeypatch.context() as patch:
        for block in (reader.read(samples), reader.read(samples)):
            assert set(block) == set(expected)
            for key, value in expected.items():
                np.testing.assert_array_equal(block[key], value, err_msg=key)
        forbid_decoding(patch)
        other = BlockReader(make_spec(name, transport=transport, cache=settings)).read(samples)
    for key, value in expected.items():
        np.testing.assert_array_equal(other[key], value, err_msg=key)


def test_cached_depth_is_not_given_in_another_unit(settings):
    for name in ("images", "depth_video"):
        for unit in ("mm", "m"):
            spec = make_spec(name, cache=settings, depth_output_unit=unit)
            expected = BlockReader(make_spec(name, depth_output_unit=unit)).read(np.array([2]))
            block = BlockReader(spec).read(np.array([2]))
            for key in spec.metadata.depth_keys:
                np.testing.assert_array_equal(block[key], expected[key])


def test_reading_ahead_fills_the_cache_with_whole_windows(settings, monkeypatch):
    spec = make_spec(offsets={FRONT: [-2, 0]}, cache=settings)
    expected = BlockReader(make_spec(offsets={FRONT: [-2, 0]})).read(np.array([9, 17, 22]))
    BlockReader(spec).read_ahead(np.array([9, 17, 22]))
    forbid_decoding(monkeypatch)
    block = BlockReader(spec).read(np.array([9, 17, 22]))
    np.testing.assert_array_equal(block[FRONT], expected[FRONT])
    BlockReader(make_spec()).read_ahead(np.array([0]))  # without a cache there is nothing to do


def test_reading_ahead_leaves_errors_to_the_reads_that_need_the_frame(settings, tmp_path):
    root = shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset")
    path = root / "videos" / FRONT / "chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:3000])
    reader = BlockReader(make_spec(root=root, cache=settings))
    reader.read_ahead(np.arange(16, 29))
    with pytest.raises(FrameError, match="episode 2"):
        reader.read(np.array([20]))
    assert len(reader.read(np.array([28]))[FRONT]) == 1


def test_reading_ahead_stops_when_the_cache_is_full(tmp_path, monkeypatch):
    decoded = []
    read = VideoReader.read
    monkeypatch.setattr(VideoReader, "read", lambda self, *a, **o: decoded.append(a) or read(self, *a, **o))
    settings = CacheSettings("disk", budget_bytes=1, directory=tmp_path / "frames")
    reader = BlockReader(make_spec(cache=settings))
    reader.read_ahead(np.arange(29))
    assert len(decoded) == 2, "the two files of the first camera, not the second camera"


def test_frames_of_an_earlier_recording_are_not_taken(settings, tmp_path):
    root = shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset")
    before = BlockReader(make_spec(root=root, cache=settings, features=(FRONT,))).read(np.array([0]))
    shutil.copy(root / "videos" / WRIST / "chunk-000/file-000.mp4", root / "videos" / FRONT / "chunk-000/file-000.mp4")
    after = BlockReader(make_spec(root=root, cache=settings, features=(FRONT,))).read(np.array([0]))
    assert not np.array_equal(before[FRONT], after[FRONT])
