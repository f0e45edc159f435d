from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lerobot_ray.core.errors import FrameError
from lerobot_ray.data.images import decode_image


def encoded(pixels: np.ndarray, format: str = "PNG", mode: str | None = None) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, format)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_png_comes_back_as_it_was():
    pixels = noise(20, 30, 3)
    frame = decode_image(encoded(pixels))
    np.testing.assert_array_equal(frame, pixels)
    assert frame.dtype == np.uint8
    assert frame.flags.writeable
    np.testing.assert_array_equal(decode_image({"bytes": encoded(pixels), "path": "frame-000000.png"}), pixels)


def test_channels_are_as_stored_and_palettes_become_colours():
    np.testing.assert_array_equal(decode_image(encoded(noise(20, 30))), noise(20, 30)[..., None])
    np.testing.assert_array_equal(decode_image(encoded(noise(20, 30, 4))), noise(20, 30, 4))
    assert decode_image(encoded(noise(20, 30, 3), mode="P")).shape == (20, 30, 3)
    assert decode_image(encoded(noise(20, 30), mode="1")).shape == (20, 30, 1)
    smooth = np.broadcast_to(np.arange(30, dtype=np.uint8)[None, :, None] * 8, (20, 30, 3)).copy()
    assert np.abs(decode_image(encoded(smooth, "JPEG")).astype(int) - smooth).max() < 16


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_depth_keeps_its_numbers_and_type(dtype):
    distances = (np.arange(600).reshape(20, 30) * 109.226).astype(dtype)
    frame = decode_image({"bytes": encoded(distances, "TIFF"), "path": "frame-000000.tiff"}, depth=True)
    assert frame.dtype == dtype
    np.testing.assert_array_equal(frame, distances[..., None])


def test_other_ways_to_store_millimetres():
    distances = (np.arange(600).reshape(20, 30) * 109).astype(np.int32)
    for bytes_ in (encoded(distances, "TIFF"), encoded(distances.astype(np.uint16), "PNG")):
        frame = decode_image(bytes_, depth=True)
        assert frame.dtype == np.uint16
        np.testing.assert_array_equal(frame[..., 0], distances)
    big_endian = io.BytesIO()
    Image.frombytes("I;16B", (30, 20), distances.astype(">u2").tobytes()).save(big_endian, "TIFF")
    np.testing.assert_array_equal(decode_image(big_endian.getvalue(), depth=True)[..., 0], distances)


def test_what_is_not_the_image_asked_for():
    deep = encoded(np.full((4, 5), 300, np.uint16), "TIFF")
    too_far = encoded(np.full((4, 5), 70000, np.int32), "TIFF")
    for bad, depth, says in [
        (deep, False, "mode I;16 is not an 8-bit picture"),
        (encoded(noise(4, 5, 3)), True, "mode RGB is not depth"),
        (too_far, True, "70000 does not fit 16 bits"),
        (b"", False, "holds no image bytes"),
        (None, False, "holds no image bytes"),
        (b"not an image", True, "these 12 bytes are not a whole image"),
    ]:
        with pytest.raises(FrameError, match=says) as caught:
            decode_image({"bytes": bad, "path": "frame-000007.png"}, depth=depth)
        assert caught.value.file == "frame-000007.png"


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's remarks about TIFF tags
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_damaged_images_are_errors_or_pictures(format):
    good = encoded(noise(40, 50, 3) if format == "PNG" else np.full((40, 50), 7.5, np.float32), format)
    rng = np.random.default_rng(0)
    errors = 0
    for trial in range(400):
        bad = bytearray(good)
        if trial % 2:
            del bad[rng.integers(len(bad)) :]
        else:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            decode_image(bytes(bad), depth=format == "TIFF")
        except FrameError:  # and nothing else
            errors += 1
    assert errors > 180
