"""Encoded frames are on the grid and are the frames that went in; joining files changes neither."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from lerobot_ray.core.errors import ConfigError, DatasetError, StorageError
from lerobot_ray.data.encode import CODECS, DEPTH_CODEC, EpisodeEncoder, concatenate, probe, try_encoder, video_codec
from lerobot_ray.data.video import VideoReader
from tests.make_dataset import code_frame, frame_code

SIZE = (64, 96)


def encode(path: Path, rows: range, *, codec: str = "h264", size: tuple[int, int] = SIZE, fps: int = 10) -> Path:
    encoder = EpisodeEncoder(path, codec=video_codec(codec), fps=fps, height=size[0], width=size[1])
    for row in rows:
        encoder.add(code_frame(row, size))
    encoder.close()
    return path


def packets(path: Path) -> list[tuple[float, float, bool]]:
    """(pts in seconds, dts in seconds, key frame) of every packet."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            (float(packet.pts * stream.time_base), float(packet.dts * stream.time_base), packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.pts is not None
        ]


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("length", [1, 2, 9])
def test_joined_episodes_keep_their_frames_and_times(tmp_path, codec, length):
    parts = [
        encode(tmp_path / "a.mp4", range(5), codec=codec),
        encode(tmp_path / "b.mp4", range(5, 5 + length), codec=codec),
        encode(tmp_path / "c.mp4", range(5 + length, 9 + length), codec=codec),
    ]
    concatenate(parts, tmp_path / "all/file-000.mp4")
    total = 9 + length
    times = np.arange(total) / 10
    shown, decoded, keys = zip(*packets(tmp_path / "all/file-000.mp4"), strict=True)
    np.testing.assert_allclose(shown, times, atol=1e-9)
    assert decoded == shown  # no B-frames: a reader needs no look-ahead
    assert [keys[row] for row in (0, 5, 5 + length)] == [True] * 3  # every episode begins with a key frame
    with VideoReader(pixel_format="rgb24") as reader:
        for row, frame in enumerate(reader.read(tmp_path / "all/file-000.mp4", times)):
            assert frame_code(frame) == (0, row)
    with av.open(str(tmp_path / "all/file-000.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
        assert container.streams.video[0].frames == total
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["file-000.mp4"]


@pytest.mark.parametrize("fps", [7, 15, 30, 60])
def test_times_are_exact_at_any_rate(tmp_path, fps):
    parts = [encode(tmp_path / f"{number}.mp4", range(7), fps=fps) for number in range(3)]
    concatenate(parts, tmp_path / "all.mp4")
    shown = [pts for pts, _, _ in packets(tmp_path / "all.mp4")]
    assert np.abs(np.array(shown) - np.arange(21) / fps).max() < 1e-9


def test_depth_codes_come_back_unchanged(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 4096, (6, 48, 64), dtype=np.uint16)
    for number, part in enumerate((frames[:4], frames[4:])):
        encoder = EpisodeEncoder(tmp_path / f"{number}.mp4", codec=DEPTH_CODEC, fps=10, height=48, width=64)
        for frame in part:
            encoder.add(frame)
        encoder.close()
    concatenate([tmp_path / "0.mp4", tmp_path / "1.mp4"], tmp_path / "all.mp4")
    with VideoReader(pixel_format="gray12le") as reader:
        assert np.array_equal(reader.read(tmp_path / "all.mp4", np.arange(6) / 10), frames)


@pytest.mark.parametrize("size", [(64, 96), (240, 320), (480, 640)])
def test_the_av1_preset_shows_every_change_at_once(tmp_path, size):
    """SVT-AV1 4 at LeRobot's preset 12 leaves blocks of the frame before. See CODECS before changing the preset."""
    rows = range(24)
    path = encode(tmp_path / "a.mp4", rows, codec="av1", size=size)
    with VideoReader(pixel_format="rgb24") as reader:
        for row, frame in zip(rows, reader.read(path, np.arange(len(rows)) / 10), strict=True):
            assert np.abs(frame.astype(int) - code_frame(row, size)).mean() < 4


@pytest.mark.parametrize(("size", "codec"), [((64, 128), "h264"), (SIZE, "hevc")])
def test_files_of_other_settings_are_not_joined(tmp_path, size, codec):
    parts = [encode(tmp_path / "a.mp4", range(2)), encode(tmp_path / "b.mp4", range(2), size=size, codec=codec)]
    with pytest.raises(DatasetError, match=r"b\.mp4 was encoded with other settings"):
        concatenate(parts, tmp_path / "all.mp4")
    assert not (tmp_path / "all.mp4").exists()


def test_probe_says_what_info_json_wants(tmp_path):
    assert probe(encode(tmp_path / "a.mp4", range(3), codec="av1")) == {
        "video.height": 64,
        "video.width": 96,
        "video.codec": "av1",
        "video.pix_fmt": "yuv420p",
        "video.fps": 10,
        "video.channels": 3,
        "has_audio": False,
    }


def test_an_encoder_error_reaches_the_recording_thread(tmp_path):
    encoder = EpisodeEncoder(tmp_path / "gone/a.mp4", codec=CODECS["h264"], fps=10, height=64, width=96)
    encoder._thread.join(0.2)

    def feed() -> None:
        for row in range(100):  # more than the queue holds: a dead encoder must not block the recorder
            encoder.add(code_frame(row, SIZE))

    with pytest.raises(StorageError, match=r"cannot encode a\.mp4 with libx264 at 96x64"):
        feed()
    with pytest.raises(StorageError):
        encoder.close()


def test_an_abandoned_file_is_gone(tmp_path):
    encoder = EpisodeEncoder(tmp_path / "a.mp4", codec=CODECS["h264"], fps=10, height=64, width=96)
    encoder.add(code_frame(0, SIZE))
    encoder.abandon()
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_will_refuse_does_so_at_once():
    with pytest.raises(ConfigError, match="libx264 cannot encode frames of 63x64 here"):
        try_encoder(CODECS["h264"], fps=10, height=64, width=63)
    for codec in CODECS.values():
        try_encoder(codec, fps=10, height=64, width=96)


def test_codecs_by_name():
    assert video_codec("libsvtav1") == video_codec("auto") == CODECS["av1"]
    assert video_codec("h265") == CODECS["hevc"]
    with pytest.raises(ConfigError, match="has no encoder 'libaom-av1'"):
        video_codec("libaom-av1")
    assert video_codec("h264_nvenc").options()["cq"] == "30"
    assert DEPTH_CODEC.options()["x265-params"] == "log-level=none:lossless=1"
