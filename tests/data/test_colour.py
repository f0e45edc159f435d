"""YUV420 to RGB: the same bytes as swscale, whatever the device, matrix, range and size."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.colour import MATRICES, yuv420_to_rgb, yuv420_to_rgb_numpy, yuv420_to_rgb_on_device

AVCOL = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": 9}


def tagged_frame(packed: np.ndarray, colorspace: int, full_range: bool) -> av.VideoFrame:
    """A frame as a decoder hands it out, with its colour tags."""
    height, width = packed.shape[0] * 2 // 3, packed.shape[1]
    frame, at = av.VideoFrame(width, height, "yuv420p"), 0
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        rows[...] = packed.reshape(-1)[at : at + rows.size].reshape(rows.shape)
        at += rows.size
    frame.colorspace, frame.color_range = colorspace, 2 if full_range else 1
    return frame


def pyav_rgb(packed: np.ndarray, colorspace: int = 2, full_range: bool = False) -> np.ndarray:
    return tagged_frame(packed, colorspace, full_range).to_ndarray(format="rgb24")


def every_y_and_u(v: int) -> np.ndarray:
    """A packed frame of 512x128 that holds each (Y, U) pair with this V."""
    u = np.broadcast_to(np.arange(256, dtype=np.uint8), (64, 256))
    y = np.arange(256, dtype=np.uint8).reshape(64, 2, 1, 2)
    y = np.broadcast_to(y, (64, 2, 256, 2))
    return np.concatenate([y.reshape(-1), u.reshape(-1), np.full(64 * 256, v, np.uint8)]).reshape(192, 512)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    ramp = np.linspace(16, 235, height * width * 3 // 2)
    return ramp.astype(np.uint8).reshape(height * 3 // 2, width)


def assert_same_bytes(packed: np.ndarray, matrix: str, full_range: bool, expected_hwc: np.ndarray) -> None:
    tensor = torch.from_numpy(packed)
    for convert in (yuv420_to_rgb, yuv420_to_rgb_on_device):
        rgb = convert(tensor, matrix=matrix, full_range=full_range)
        assert rgb.dtype == torch.uint8
        np.testing.assert_array_equal(rgb.permute(1, 2, 0).numpy(), expected_hwc, err_msg=convert.__name__)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_every_colour_comes_out_as_from_swscale(matrix, full_range):
    for v in (0, 16, 77, 128, 201, 255):  # all 256 were compared once
        packed = every_y_and_u(v)
        assert_same_bytes(packed, matrix, full_range, pyav_rgb(packed, AVCOL[matrix], full_range))


def test_untagged_streams_are_bt601_of_limited_range():
    for packed in (noise(96, 96), smooth(64, 96)):
        for colorspace in (2, 5, 6):  # not said, BT.470BG, SMPTE 170M
            assert_same_bytes(packed, "bt601", False, pyav_rgb(packed, colorspace))


def test_the_matrices_do_differ():
    packed = noise(96, 96)
    results = [yuv420_to_rgb_numpy(packed, matrix=m, full_range=f).tobytes() for m in MATRICES for f in (False, True)]
    assert len(set(results)) == len(results)


@settings(max_examples=30, deadline=None)
@given(half_h=st.integers(1, 40), half_w=st.integers(1, 70), seed=st.integers(0, 9), full_range=st.booleans())
def test_any_even_size(half_h, half_w, seed, full_range):
    packed = noise(half_h * 3, half_w * 2, seed=seed)
    assert_same_bytes(packed, "bt709", full_range, pyav_rgb(packed, AVCOL["bt709"], full_range))


def test_leading_dimensions_stay():
    packed = noise(2, 3, 4, 48, 64)
    rgb = yuv420_to_rgb(torch.from_numpy(packed))
    assert rgb.shape == (2, 3, 4, 3, 32, 64)
    np.testing.assert_array_equal(rgb[1, 2, 3].permute(1, 2, 0).numpy(), pyav_rgb(packed[1, 2, 3]))
    assert torch.equal(rgb, yuv420_to_rgb_on_device(torch.from_numpy(packed)))
    assert rgb.movedim(-3, -1).is_contiguous()  # channels last, no copy
    assert yuv420_to_rgb(torch.from_numpy(packed[:0])).shape == (0, 3, 4, 3, 32, 64)
    assert yuv420_to_rgb_on_device(torch.from_numpy(packed[:0])).shape == (0, 3, 4, 3, 32, 64)


def test_input_is_left_alone_and_need_not_be_contiguous():
    packed = noise(4, 96, 96)
    before = packed.copy()
    strided = torch.from_numpy(packed)[::2]
    assert torch.equal(yuv420_to_rgb(strided), yuv420_to_rgb_on_device(strided))
    np.testing.assert_array_equal(packed, before)
    packed.flags.writeable = False  # a block out of shared memory
    yuv420_to_rgb_numpy(packed)


def test_out_is_filled():
    packed, out = noise(2, 96, 96), np.zeros((3, 64, 96, 3), np.uint8)
    assert yuv420_to_rgb_numpy(packed, out=out[1:]).base is out
    np.testing.assert_array_equal(out[1], pyav_rgb(packed[0]))
    assert not out[0].any()


def test_an_unknown_matrix_is_refused():
    for convert in (yuv420_to_rgb, yuv420_to_rgb_on_device):
        with pytest.raises(DatasetError, match="unknown colour matrix 'bt6O1'; known: bt709"):
            convert(torch.zeros(3, 2, dtype=torch.uint8), matrix="bt6O1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bytes():
    packed = torch.from_numpy(noise(4, 720, 640))
    on_gpu = packed.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rgb = yuv420_to_rgb(on_gpu, matrix="bt709", full_range=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(rgb.cpu(), yuv420_to_rgb(packed, matrix="bt709", full_range=True))
