"""Reading video frames by time.

Clips are encoded here; every frame carries its number in blocks of light and dark, which survive lossy coding, so that
a wrong frame shows itself without a second decoder. How the pixels compare with LeRobot 0.6.1 was looked at once, by
decoding 32 files (AV1 and H.264; 96x64 to 640x480; untagged, BT.601, BT.709, full range, 4:4:4) there and here: with
torchcodec 0.11 every byte is the same, with pyav 15.1 too except for BT.709, which it reads as BT.601 (off by
up to 40).
"""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import FrameError
from lerobot_ray.data import video_index
from lerobot_ray.data.video import VideoReader, probe
from lerobot_ray.data.video_index import build_index, index_from_packets, index_from_tables
from lerobot_ray.data.video_packets import ListedPackets, open_packets

HEIGHT, WIDTH, BLOCK = 64, 96, 16
AV1 = {"g": "2", "crf": "30", "preset": "12"}


def picture(number: int) -> np.ndarray:
    """RGB frame whose number can be read back; the lower half moves, so that inter coding has work to do."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(12):
        top, left = BLOCK * (bit // 6), BLOCK * (bit % 6)
        image[top : top + BLOCK, left : left + BLOCK] = 220 if number >> bit & 1 else 30
    rows, columns = np.mgrid[0 : HEIGHT - 32, 0:WIDTH]
    image[32:] = np.stack([rows * 5 + number * 3, columns * 2 + number * 7, rows + columns + number], -1) % 200
    return image


def number_in(frame: np.ndarray) -> int:
    """The number in a frame of any of the reader's pixel formats."""
    luma = frame.astype(float).mean(-1) if frame.ndim == 3 else frame.astype(float)
    bits = [luma[BLOCK * (b // 6) + 4 :, BLOCK * (b % 6) + 4 :][: BLOCK - 8, : BLOCK - 8].mean() for b in range(12)]
    threshold = 125 if luma.max() < 256 else 2000
    return sum((value > threshold) << bit for bit, value in enumerate(bits))


def encode(
    path: Path, numbers, codec="libx264", *, fps=30, pix_fmt="yuv420p", options=None, size=(WIDTH, HEIGHT), **muxer
) -> Path:
    with av.open(str(path), "w", **muxer) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for number in numbers:
            if pix_fmt == "gray12le":
                frame = av.VideoFrame(WIDTH, HEIGHT, "gray12le")
                plane = frame.planes[0]
                np.frombuffer(plane, "<u2").reshape(HEIGHT, -1)[:, :WIDTH] = depth_codes(number)
            else:
                frame = av.VideoFrame.from_ndarray(picture(number)[: size[1], : size[0]].copy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def depth_codes(number: int) -> np.ndarray:
    return picture(number).astype(np.uint16)[..., 0] * 16 + np.arange(WIDTH, dtype=np.uint16) % 16


def join(parts, path: Path, *, start_s: float = 0.0, scale: int | None = None, **muxer) -> Path:
    """Appends clips by copying packets, as a recorder appends episodes. `start_s` may be negative: that trims."""
    with av.open(str(path), "w", **muxer) as container:
        stream, begin_s = None, Fraction(start_s)
        for part in parts:
            with av.open(str(part)) as source:
                if stream is None:
                    stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
                    if scale:
                        stream.time_base = Fraction(1, scale)
                length_s = Fraction(source.streams.video[0].duration) * source.streams.video[0].time_base
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is not None:
                        shift = round(begin_s / packet.time_base)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        container.mux(packet)
                begin_s += length_s
    return path


X265 = "log-level=none:keyint=12:min-keyint=12:scenecut=0:bframes=4"
CLIPS = {
    "av1": lambda path: encode(path, range(40), "libsvtav1", options=AV1),
    "av1 long": lambda path: encode(path, range(40), "libsvtav1", options=AV1 | {"g": "32"}),
    "h264": lambda path: encode(path, range(90), options={"g": "30", "bf": "0"}),
    "h264 B-frames": lambda path: encode(path, range(90), options={"g": "30", "bf": "3"}),
    "h264 g=2": lambda path: encode(path, range(40), options={"g": "2"}),
    "h264 open GOP": lambda path: encode(
        path, range(60), options={"x264-params": "keyint=12:open-gop=1:bframes=3:scenecut=0"}
    ),
    "hevc open GOP": lambda path: encode(path, range(60), "libx265", options={"x265-params": X265 + ":open-gop=1"}),
    "depth": lambda path: encode(
        path, range(40), "libx265", pix_fmt="gray12le", options={"g": "2", "x265-params": "lossless=1:log-level=none"}
    ),
    "7 fps": lambda path: encode(path, range(40), fps=7),
    "29.97 fps": lambda path: encode(path, range(40), fps=Fraction(30000, 1001)),
    "joined av1": lambda path: join([clip("av1")] * 3, path),
    "joined B-frames": lambda path: join([clip("h264 B-frames")] * 2, path, options={"movflags": "faststart"}),
    "joined depth": lambda path: join([clip("depth")] * 2, path),
    "late start": lambda path: join([clip("h264 B-frames")], path, start_s=1.5),
    "odd time base": lambda path: join([clip("h264 B-frames")], path, scale=90000),
    "fragmented": lambda path: join([clip("av1")], path, options={"movflags": "frag_keyframe+empty_moov"}),
    "matroska": lambda path: join([clip("h264 B-frames")], path.with_suffix(".mkv")),
}
_made: dict[str, Path] = {}


@pytest.fixture(scope="session", autouse=True)
def _clips_folder(tmp_path_factory):
    _made["folder"] = tmp_path_factory.mktemp("clips")


def clip(name: str) -> Path:
    if name not in _made:
        _made[name] = CLIPS[name](_made["folder"] / (name.replace(" ", "_") + ".mp4"))
    return _made[name]


def shown(path: Path) -> tuple[np.ndarray, list[int]]:
    """Times and numbers of a clip's frames, by decoding it from the start."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    numbers = [number_in(f.to_ndarray(format="gray12le" if "gray" in f.format.name else "rgb24")) for f in frames]
    return np.array([frame.pts * frame.time_base for frame in frames], float), numbers


def pixel_format(name: str) -> str:
    return "gray12le" if "depth" in name else "yuv420p"


@pytest.mark.parametrize("name", CLIPS)
def test_any_frames_in_any_order(name):
    path = clip(name)
    times_s, numbers = shown(path)
    rng = np.random.default_rng(0)
    with VideoReader(pixel_format=pixel_format(name)) as reader:
        assert [number_in(f) for f in reader.read(path, times_s)] == numbers
        for _ in range(25):
            wanted = rng.integers(0, len(numbers), rng.integers(1, 7))
            frames = reader.read(path, times_s[wanted])
            assert [number_in(f) for f in frames] == [numbers[i] for i in wanted]
        run = np.arange(5, 30)  # a window that a policy may ask for, backwards
        assert [number_in(f) for f in reader.read(path, times_s[run][::-1])] == [numbers[i] for i in run[::-1]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reads=st.lists(st.lists(st.integers(0, 179), min_size=1, max_size=8), min_size=1, max_size=6))
def test_what_was_read_before_does_not_matter(reads):
    path = clip("joined B-frames")
    with VideoReader() as reader:
        for wanted in reads:
            frames = reader.read(path, np.array(wanted) / 30)
            assert [number_in(f) for f in frames] == [i % 90 for i in wanted]


@pytest.mark.parametrize("name", [name for name in CLIPS if name not in ("fragmented", "matroska")])
def test_sample_tables_say_what_the_packets_say(name):
    with av.open(str(clip(name))) as container:
        from_tables = index_from_tables(clip(name), container, container.streams.video[0])
    from_packets = index_from_packets(clip(name))
    assert from_tables is not None
    assert from_tables.time_base == from_packets.time_base
    for field in ("pts", "place", "key", "packet_pts"):
        np.testing.assert_array_equal(getattr(from_tables, field), getattr(from_packets, field), err_msg=field)


@pytest.mark.parametrize("name", CLIPS)
def test_listed_packets_are_the_demuxed_ones(name):
    is_listed = name not in ("fragmented", "matroska")
    with av.open(str(clip(name))) as container, av.open(str(clip(name))) as other:
        stream = container.streams.video[0]
        source = open_packets(str(clip(name)), container, stream, build_index(clip(name), container, stream))
        assert isinstance(source, ListedPackets) == is_listed
        assert source.seek(0) == 0
        for wanted in other.demux(video=0):
            packet = source.read()
            if wanted.size == 0:
                assert packet is None
                break
            assert (packet.pts, packet.dts, packet.is_keyframe) == (wanted.pts, wanted.dts, wanted.is_keyframe)
            assert bytes(packet) == bytes(wanted)
        source.close()


@pytest.mark.parametrize("name", ["h264", "h264 B-frames"])
def test_a_trimmed_file_shows_what_is_left(name, tmp_path):
    path = join([clip(name)], tmp_path / "trimmed.mp4", start_s=-0.5, options={"avoid_negative_ts": "disabled"})
    with av.open(str(path)) as container:
        assert index_from_tables(path, container, container.streams.video[0]) is None
    times_s, numbers = shown(path)
    assert numbers == list(range(15, 90))
    with VideoReader() as reader:
        assert [number_in(f) for f in reader.read(path, times_s[::-7])] == numbers[::-7]


def test_tables_that_lie_are_caught_by_the_packets(monkeypatch):
    """As if the mp4's tables had been read wrongly: times that no packet has, frames that are not there."""
    real = video_index.index_from_tables
    for lie in (
        {"pts": lambda index: index.pts + 7},
        {"pts": lambda index: np.where(np.arange(len(index.pts)) == 20, index.pts + 100, index.pts)},
        {"key": lambda index: np.full_like(index.key, 30)},
    ):

        def lying(path, container, stream, lie=lie):
            index = real(path, container, stream)
            return replace(index, **{field: change(index) for field, change in lie.items()})

        monkeypatch.setattr(video_index, "index_from_tables", lying)
        with VideoReader() as reader:
            assert [number_in(f) for f in reader.read(clip("h264"), np.arange(10, 80) / 30)] == list(range(10, 80))
            with pytest.raises(FrameError, match="no frame at 9"):
                reader.read(clip("h264"), [9.0])
            assert number_in(reader.read(clip("h264"), [1.5])[0]) == 45


def packets_for(name: str, *reads) -> list[int]:
    """How many packets each read decodes, one reader, times given as frame numbers."""
    counts, fps = [], probe(clip(name)).fps
    with VideoReader(pixel_format=pixel_format(name)) as reader:
        for numbers in reads:
            before = reader.packets_fed
            reader.read(clip(name), np.array(numbers) / fps)
            counts.append(reader.packets_fed - before)
    return counts


def test_no_more_is_decoded_than_needed():
    assert packets_for("av1", range(40), [4], [5], [7], [8, 9], [20, 20, 20]) == [40, 1, 1, 2, 2, 1]
    assert packets_for("h264", range(10), range(10, 20), [25, 40], [39, 41]) == [10, 10, 6 + 11, 1 + 10]
    # forward from where the decoder stands, then back for what lies behind
    assert packets_for("h264", [20], [2, 25]) == [21, 5 + 3]
    # one at the end of a short GOP: drained, not waited for
    assert packets_for("h264 g=2", [10], [11], [20, 30]) == [1, 2, 2]
    assert packets_for("h264 B-frames", range(90)) == [90]
    assert packets_for("hevc open GOP", range(60)) == [60]


def test_out_is_filled_and_checked():
    path = clip("av1")
    with VideoReader() as reader:
        block = np.zeros((5, HEIGHT * 3 // 2, WIDTH), np.uint8)
        frames = reader.read(path, [0.1, 0.2, 0.1], out=block[1:4])
        assert frames.base is block
        assert [number_in(f) for f in frames] == [3, 6, 3]
        assert not block[0].any()
        assert not block[4].any()
        for wrong in (block[:2], block[1:4].astype(np.uint16), np.zeros((3, HEIGHT, WIDTH), np.uint8)):
            with pytest.raises(ValueError, match="fills a contiguous"):
                reader.read(path, [0.1, 0.2, 0.1], out=wrong)
        assert reader.read(path, []).shape == (0, HEIGHT * 3 // 2, WIDTH)


def test_pixels_are_those_of_pyav():
    for name in ("av1", "h264 B-frames"):
        with av.open(str(clip(name))) as container:
            frames = list(container.decode(video=0))[10:13]
        times_s = [10 / 30, 11 / 30, 12 / 30]
        with VideoReader(pixel_format="rgb24") as rgb, VideoReader(pixel_format="yuv420p") as yuv:
            expected = [frame.to_ndarray(format="rgb24") for frame in frames]
            np.testing.assert_array_equal(rgb.read(clip(name), times_s), expected)
            np.testing.assert_array_equal(yuv.read(clip(name), times_s), [frame.to_ndarray() for frame in frames])
    with VideoReader(pixel_format="gray12le") as depth:
        np.testing.assert_array_equal(depth.read(clip("depth"), [0.5, 0.1]), [depth_codes(15), depth_codes(3)])


def test_float32_times_far_into_a_file():
    start_s = 3500.0
    path = join([clip("h264")], clip("h264").with_name("late.mp4"), start_s=start_s)
    as_float32 = np.float32(start_s + np.arange(90) / 30)
    assert np.abs(as_float32 - (start_s + np.arange(90) / 30)).max() > 1e-4  # what the tolerance alone would refuse
    with VideoReader() as reader:
        for times_s in (as_float32, start_s + np.float32(np.arange(90) / 30).astype(np.float64)):
            assert [number_in(f) for f in reader.read(path, times_s, tolerance_s=1e-4)] == list(range(90))
        with pytest.raises(FrameError, match=r"3501\.005000 s"):
            reader.read(path, [start_s + 1.005], tolerance_s=1e-4)


@pytest.mark.parametrize(
    ("time_s", "says"),
    [
        (0.105, r"no frame at 0.105000 s: the nearest is at 0.100000 s \(tolerance_s 0.0001\). Encode .* tolerance_s"),
        (-0.1, r"no frame at -0.100000 s: the nearest is at 0.000000 s"),
        (2.0, r"no frame at 2.000000 s: the nearest is at 1.300000 s, the last one .* truncated"),
        (float("nan"), r"no frame at nan s"),
        (float("inf"), r"no frame at inf s"),
    ],
)
def test_a_time_without_a_frame(time_s, says):
    with VideoReader() as reader:
        with pytest.raises(FrameError, match=says) as caught:
            reader.read(clip("av1"), [0.1, time_s, 0.2])
        assert caught.value.file == str(clip("av1"))
        assert number_in(reader.read(clip("av1"), [0.105], tolerance_s=0.01)[0]) == 3
        assert reader.packets_fed <= 2  # refused before decoding


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    encode(tmp_path / "h264.mp4", range(20))
    (tmp_path / "unfinished.mp4").write_bytes((tmp_path / "h264.mp4").read_bytes()[:2000])
    with VideoReader() as reader:
        for name in ("missing.mp4", "empty.mp4", "text.mp4", "unfinished.mp4", "."):
            with pytest.raises(FrameError, match=r"no frame at 0\.500000 s") as caught:
                reader.read(tmp_path / name, [0.5])
            assert caught.value.file == str(tmp_path / name)
        with pytest.raises(FrameError, match=r"no frame at 0\.500000 s: .*No such file"):
            reader.read(tmp_path / "missing.mp4", [0.5])
        assert number_in(reader.read(tmp_path / "h264.mp4", [0.5])[0]) == 15


@pytest.mark.parametrize("name", ["av1", "h264 B-frames", "h264 g=2", "hevc open GOP", "depth"])
def test_a_truncated_file_gives_right_frames_or_an_error(name, tmp_path):
    whole = join([clip(name)], tmp_path / "whole.mp4", options={"movflags": "faststart"})
    data, (times_s, numbers) = whole.read_bytes(), shown(clip(name))
    start = data.index(b"mdat")
    rng = np.random.default_rng(1)
    with VideoReader(pixel_format=pixel_format(name)) as reader:
        for cut in rng.integers(start, len(data), 6):
            (tmp_path / "cut.mp4").write_bytes(data[:cut])
            outcomes = []
            for i in rng.permutation(len(numbers))[:16]:
                try:
                    frame = reader.read(tmp_path / "cut.mp4", [times_s[i]])[0]
                except FrameError as error:
                    says, frame = str(error), None
                if frame is None:
                    assert f"{times_s[i]:.6f} s" in says
                else:
                    assert number_in(frame) == numbers[i]
                outcomes.append((i, frame is not None))
            readable = [i for i, is_read in outcomes if is_read]
            assert all(i > max(readable, default=-1) - 16 for i, is_read in outcomes if not is_read)
        assert [number_in(f) for f in reader.read(whole, times_s)] == numbers


@pytest.mark.parametrize("name", ["joined av1", "late start"])
def test_damaged_tables_are_an_error_or_go_unnoticed(name, tmp_path):
    data, times_s = clip(name).read_bytes(), shown(clip(name))[0]
    moov = data.index(b"moov")
    rng = np.random.default_rng(2)
    errors = 0
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(moov, len(data))] = rng.integers(256)
        (tmp_path / "damaged.mp4").write_bytes(damaged)
        with VideoReader() as reader:
            try:
                reader.read(tmp_path / "damaged.mp4", times_s[[20]])
            except FrameError:  # and nothing else, and soon
                errors += 1
    assert errors > 5


@pytest.mark.parametrize("name", ["h264", "av1 long"])
def test_a_damaged_group_does_not_spoil_the_others(name, tmp_path):
    index, data = index_from_packets(clip(name)), bytearray(clip(name).read_bytes())
    keys = np.unique(index.key)
    with av.open(str(clip(name))) as container:
        packets = list(container.demux(video=0))
    damaged = packets[keys[1]]
    data[damaged.pos : damaged.pos + damaged.size] = bytes(damaged.size)
    (tmp_path / "damaged.mp4").write_bytes(data)
    group = index.key == keys[1]
    with VideoReader() as reader:
        for _ in range(2):
            for rank in (np.flatnonzero(group)[0], np.flatnonzero(group)[5], np.flatnonzero(group)[-1]):
                with pytest.raises(FrameError, match="cannot be decoded"):
                    reader.read(tmp_path / "damaged.mp4", [index.times_s[rank]])
            good = np.flatnonzero(~group)
            frames = reader.read(tmp_path / "damaged.mp4", index.times_s[good])
            assert [number_in(f) for f in frames] == good.tolist()


def test_what_leans_on_a_damaged_frame_is_damaged(tmp_path):
    data = bytearray(clip("h264").read_bytes())
    with av.open(str(clip("h264"))) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][40]  # key frames: 0, 30, 60
    data[packet.pos + 30 : packet.pos + packet.size] = bytes(packet.size - 30)  # the decoder hides it as well as it can
    (tmp_path / "damaged.mp4").write_bytes(data)
    with VideoReader() as reader:
        for number in [*range(40), *range(60, 90), 35, 39]:
            assert number_in(reader.read(tmp_path / "damaged.mp4", [number / 30])[0]) == number
        for number in (40, 41, 50, 59):
            with pytest.raises(FrameError, match="it is damaged"):
                reader.read(tmp_path / "damaged.mp4", [number / 30])
        with pytest.raises(FrameError, match="it is damaged"):
            reader.read(tmp_path / "damaged.mp4", np.arange(30, 60) / 30)


def test_a_file_may_be_replaced_or_vanish(tmp_path):
    path = encode(tmp_path / "episode.mp4", range(10))
    with VideoReader() as reader:
        assert number_in(reader.read(path, [0.1])[0]) == 3
        encode(tmp_path / "new.mp4", range(100, 120))
        os.replace(tmp_path / "new.mp4", path)
        assert number_in(reader.read(path, [0.1])[0]) == 103
        path.unlink()
        with pytest.raises(FrameError, match="No such file"):
            reader.read(path, [0.1])


def open_files() -> list[str]:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.islink(link)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts handles in /proc")
def test_handles_stay_within_their_budget(tmp_path):
    data = clip("h264").read_bytes()
    paths = [tmp_path / f"{i}.mp4" for i in range(7)]
    for path in paths:
        path.write_bytes(data)
    with VideoReader(max_open=3) as reader:
        for i in np.random.default_rng(0).integers(0, 7, 40):
            assert number_in(reader.read(paths[i], [0.4])[0]) == 12
            assert sum(str(tmp_path) in name for name in open_files()) <= 3 * 2  # container and packets
    assert not any(str(tmp_path) in name for name in open_files())


def test_an_index_budget_forgets_indexes_not_frames(tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(4)]
    for path in paths:
        path.write_bytes(clip("h264").read_bytes())
    with VideoReader(max_open=1, max_index_bytes=1) as reader:
        for path in paths * 2:
            assert number_in(reader.read(path, [0.4])[0]) == 12
            assert len(reader._indexes) <= 1


def test_what_a_probe_says():
    info = probe(clip("av1"))
    assert (info.width, info.height, info.codec, info.pix_fmt) == (WIDTH, HEIGHT, "av1", "yuv420p")
    assert (info.fps, info.num_frames, info.start_s) == (30, 40, 0)
    assert info.duration_s == pytest.approx(40 / 30)
    assert (info.matrix, info.full_range, info.transport) == ("bt601", False, "yuv420p")
    assert probe(clip("depth")).transport == "gray12le"
    assert probe(clip("late start")).start_s == pytest.approx(1.5)
    assert probe(clip("fragmented")).num_frames == 40
    assert probe(str(clip("29.97 fps"))).fps == pytest.approx(30000 / 1001)


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "size", "options", "transport", "matrix", "full_range"),
    [
        ("yuv420p", "libx264", (WIDTH, HEIGHT), {"colorspace": "bt709"}, "yuv420p", "bt709", False),
        ("yuv420p", "libsvtav1", (WIDTH, HEIGHT), AV1 | {"colorspace": "smpte170m"}, "yuv420p", "bt601", False),
        ("yuvj420p", "libx264", (WIDTH, HEIGHT), {}, "yuv420p", "bt601", True),
        ("yuv444p", "libx264", (WIDTH, HEIGHT), {}, "rgb24", "bt601", False),
        ("yuv420p", "libx264", (WIDTH, HEIGHT), {"colorspace": "ycgco"}, "rgb24", None, False),
        ("yuv420p", "ffv1", (WIDTH - 5, HEIGHT - 1), {}, "rgb24", "bt601", False),
    ],
)
def test_formats_that_cannot_travel_as_yuv_say_so(
    pix_fmt, codec, size, options, transport, matrix, full_range, tmp_path
):
    path = tmp_path / "clip.mkv"
    encode(path, range(8), codec, pix_fmt=pix_fmt, size=size, options=options)
    info = probe(path)
    assert (info.transport, info.matrix, info.full_range) == (transport, matrix, full_range)
    times_s = index_from_packets(path).times_s
    with VideoReader(pixel_format="rgb24") as reader:
        if matrix is None:  # swscale of FFmpeg 8 does not know this one either
            with pytest.raises(FrameError, match="swscale cannot"):
                reader.read(path, times_s)
        else:
            with av.open(str(path)) as container:
                expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            np.testing.assert_array_equal(reader.read(path, times_s), expected)
    with VideoReader(pixel_format="yuv420p") as reader:
        if transport == "yuv420p":
            assert [number_in(f) for f in reader.read(path, times_s)] == list(range(8))
        else:
            with pytest.raises(FrameError, match="Read it as rgb24"):
                reader.read(path, times_s)
    with VideoReader(pixel_format="gray12le") as reader, pytest.raises(FrameError, match="cannot be read as gray12le"):
        reader.read(path, times_s)


@pytest.mark.parametrize(
    "second", [{"width": 64, "height": 48}, {"options": {"colorspace": "bt709"}}], ids=["size", "colour matrix"]
)
def test_a_stream_that_changes_on_the_way_is_refused(second, tmp_path):
    path = tmp_path / "changing.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        other = av.CodecContext.create("libx264", "w")
        other.width, other.height = second.get("width", WIDTH), second.get("height", HEIGHT)
        other.pix_fmt, other.time_base, other.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
        other.options = {"bf": "0"} | second.get("options", {})
        for encoder, first in ((stream, 0), (other, 10)):
            packets = []
            for number in range(first, first + 10):
                image = picture(number)[: other.height if first else HEIGHT, : other.width if first else WIDTH].copy()
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream = stream
                container.mux(packet)
    start_s = probe(path).start_s
    with VideoReader() as reader:
        assert number_in(reader.read(path, [start_s + 0.1], tolerance_s=1e-3)[0]) == 3
        with pytest.raises(FrameError, match="the file begins as 96x64"):
            reader.read(path, [start_s + 0.4], tolerance_s=1e-3)
        assert number_in(reader.read(path, [start_s + 0.2], tolerance_s=1e-3)[0]) == 6
