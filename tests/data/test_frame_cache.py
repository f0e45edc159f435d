from __future__ import annotations

import errno
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import DatasetError, StorageError
from lerobot_ray.data import cache_chunk, cache_space
from lerobot_ray.data.cache import FrameCache, build_frame_cache
from lerobot_ray.data.cache_space import default_base, purge_unused

TORTURE = Path(__file__).with_name("frame_cache_torture.py")
SHAPE = (96, 100)
FRAME_BYTES = 96 * 100
PLENTY = 1 << 24


def frames(rows, shape=SHAPE, dtype=np.uint8) -> np.ndarray:
    rows = np.asarray(rows)
    return np.stack([np.random.default_rng(row).integers(0, 256, shape).astype(dtype) for row in rows])


def look(cache: FrameCache, rows, camera: str = "front") -> np.ndarray:
    """Which rows are there; fails if one of them is not right."""
    out = np.full((len(rows), *SHAPE), 77, np.uint8)
    hits = cache.get(camera, np.asarray(rows), out)
    for row, hit, frame in zip(rows, hits, out, strict=True):
        np.testing.assert_array_equal(frame, frames([row])[0] if hit else np.full(SHAPE, 77))
    return hits


def fill(cache: FrameCache, rows, camera: str = "front") -> int:
    return cache.put(camera, np.asarray(rows), frames(rows))


@pytest.fixture
def open_cache(tmp_path):
    """Opens caches in a folder of their own; closed at the end if the test has not."""
    opened = []

    def open_(kind="memory", namespace="a dataset, yuv420p", *, budget_bytes=PLENTY, **options) -> FrameCache:
        cache = FrameCache(kind, namespace, budget_bytes=budget_bytes, directory=tmp_path / kind, **options)
        opened.append(cache)
        return cache

    yield open_
    for cache in opened:
        cache.close()


def chunk_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.frames"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.sampled_from(["front", "wrist"]), st.lists(st.integers(0, 300), max_size=20)),
        max_size=12,
    )
)
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_was_put_in_comes_out(kind, tmp_path, steps):
    put: set[tuple[str, int]] = set()
    with FrameCache(kind, os.urandom(8).hex(), budget_bytes=PLENTY, directory=tmp_path) as cache:
        for is_put, camera, rows in steps:
            if is_put and rows:
                new = {(camera, row) for row in rows} - put
                assert fill(cache, rows, camera) == len(new)
                put |= new
            else:
                assert look(cache, rows, camera).tolist() == [(camera, row) in put for row in rows]
        stats = cache.stats()
        assert stats.kept == len(put)
        assert stats.hits + stats.misses == sum(len(rows) for is_put, _, rows in steps if not (is_put and rows))


def test_any_fixed_size_frames_and_their_tags(open_cache):
    cache = open_cache()
    rows = np.array([70, 3, 64, 4, 5])
    for camera, shape, dtype in [
        ("rgb", (8, 9, 3), np.uint8),
        ("depth", (7, 5), np.uint16),
        ("scalar", (), np.float32),
    ]:
        given_ = frames(rows, shape, dtype)
        tags = np.array([0, 1, 254, 3, 4], np.uint8)
        assert cache.put(camera, rows, given_, tags) == 5
        out, back = np.zeros_like(given_), np.zeros(5, np.uint8)
        assert cache.get(camera, rows[::-1], out, back).all()
        np.testing.assert_array_equal(out, given_[::-1])
        np.testing.assert_array_equal(back, tags[::-1])
    strided = np.zeros((5, 2, 7, 5), np.uint16)
    assert cache.get("depth", rows, strided[:, 1]).all()
    np.testing.assert_array_equal(strided[:, 1], frames(rows, (7, 5), np.uint16))


def test_what_is_there_is_not_written_again(open_cache):
    cache = open_cache()
    fill(cache, [1, 2, 3])
    assert cache.put("front", np.array([2, 4, 4]), frames([9, 4, 4])) == 1
    assert look(cache, [1, 2, 3, 4, 5]).tolist() == [True] * 4 + [False]


def test_processes_share(open_cache):
    one, other = open_cache(), open_cache()
    fill(one, range(100))
    assert look(other, range(0, 100, 7)).all()
    code = (
        "import sys, numpy as np; from pathlib import Path; from lerobot_ray.data.cache import FrameCache\n"
        f"cache = FrameCache('memory', 'a dataset, yuv420p', budget_bytes={PLENTY}, directory=Path(sys.argv[1]))\n"
        f"out = np.zeros((3, *{SHAPE}), np.uint8)\n"
        "print(cache.get('front', np.array([0, 99, 100]), out).tolist(), out.sum())"
    )
    base = one._space.root.parent
    said = subprocess.run([sys.executable, "-c", code, str(base)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"[True, True, False] {frames([0, 99]).sum()}"


def test_namespaces_and_cameras_are_apart(open_cache):
    yuv, rgb = open_cache(), open_cache(namespace="a dataset, rgb24")
    fill(yuv, [1, 2], "front")
    assert not look(rgb, [1, 2], "front").any()
    assert not look(yuv, [1, 2], "wrist").any()
    rgb.put("front", np.array([1]), frames([5]))
    assert look(yuv, [1]).all()


def test_frames_of_another_shape_are_refused(open_cache):
    cache, other = open_cache(), open_cache()
    fill(cache, [1])
    for wrong in (np.zeros((1, 96, 101), np.uint8), np.zeros((1, *SHAPE), np.uint16)):
        for user in (cache, other):
            with pytest.raises(
                DatasetError, match=r"frames of front are .* but uint8\(96, 100\) in the cache of 'a dataset"
            ):
                user.put("front", np.array([2]), wrong)
            with pytest.raises(DatasetError, match="need another namespace"):
                user.get("front", np.array([1]), wrong)
    assert look(cache, [1]).all()


def test_a_full_cache_keeps_what_it_has(open_cache):
    budget = 40 * FRAME_BYTES
    cache = open_cache(budget_bytes=budget)
    for start in range(0, 200, 10):
        fill(cache, range(start, start + 10))
        assert cache.stats().used_bytes <= budget
        assert sum(file.stat().st_size for file in chunk_files(cache._space.root)) == cache.stats().used_bytes
    here = look(cache, range(200))
    assert 15 <= here.sum() <= 40
    assert here[: here.sum()].all()  # the first ones stayed
    stats = cache.stats()
    assert (stats.kept, stats.refused, stats.hits, stats.misses) == (
        here.sum(),
        200 - here.sum(),
        here.sum(),
        200 - here.sum(),
    )


def test_lru_lets_go_what_was_unused_longest(open_cache, monkeypatch):
    monkeypatch.setattr(cache_chunk, "TOUCH_S", 0.0)
    budget = 64 * FRAME_BYTES
    cache = open_cache(budget_bytes=budget, eviction="lru")
    for start in range(0, 400, 10):
        fill(cache, range(start, start + 10))
        assert look(cache, [0, 1]).all()  # in use all along
        assert cache.stats().used_bytes <= budget
    here = np.flatnonzero(look(cache, range(400)))
    assert {398, 399} <= set(here)
    assert 20 <= len(here) <= 64
    assert len([row for row in here if 10 < row < 300]) == 0


def test_evicted_memory_is_free_at_once_though_others_have_it_open(open_cache):
    budget = 32 * FRAME_BYTES
    reader, writer = open_cache(budget_bytes=budget), open_cache(budget_bytes=budget, eviction="lru")
    fill(reader, [0, 1])
    assert look(reader, [0, 1]).all()
    held = next(iter(reader._chunks.values()))
    blocks = os.fstat(held._fd).st_blocks
    for start in range(100, 200, 2):
        fill(writer, [start, start + 1])
    assert os.fstat(held._fd).st_blocks < blocks
    assert not look(reader, [0, 1]).any()
    fill(writer, [0, 1])
    assert look(reader, [0, 1]).all()


def test_a_chunk_being_read_is_not_evicted(open_cache):
    cache = open_cache(budget_bytes=32 * FRAME_BYTES, eviction="lru")
    reader = open_cache(budget_bytes=32 * FRAME_BYTES)
    fill(cache, [0])
    assert look(reader, [0]).all()
    with next(iter(reader._chunks.values())).locked():
        for row in range(100, 200):
            fill(cache, [row])
        assert look(reader, [0]).all()
    for row in range(200, 300):
        fill(cache, [row])
    assert not look(reader, [0]).any()


def test_nothing_is_written_to_an_evicted_chunk(open_cache):
    """Its bytes would count nowhere."""
    budget = 32 * FRAME_BYTES
    cache, other = open_cache(budget_bytes=budget), open_cache(budget_bytes=budget, eviction="lru")
    fill(cache, [0])
    chunk = next(iter(cache._chunks.values()))
    for row in range(100, 200):
        fill(other, [row])
    assert not chunk.is_alive
    cache._open = lambda layout, number: chunk  # as if the eviction came after the look
    blocks = os.fstat(chunk._fd).st_blocks
    assert fill(cache, [1]) == 0
    assert not look(cache, [0, 1]).any()
    assert os.fstat(chunk._fd).st_blocks == blocks


def test_one_process_at_a_time_writes_to_a_chunk(open_cache):
    cache = open_cache()
    fill(cache, [0])
    holding, release = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            look(cache, [0])
            with next(iter(cache._chunks.values())).locked_for_writing():
                os.write(holding[1], b"h")
                os.read(release[0], 1)
        finally:
            os._exit(0)
    try:
        os.read(holding[0], 1)
        writer = threading.Thread(target=fill, args=(cache, [1]), daemon=True)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
    finally:
        os.write(release[1], b"r")
        os.waitpid(pid, 0)
    writer.join(10)
    assert not writer.is_alive()
    for fd in (*holding, *release):
        os.close(fd)
    assert look(cache, [0, 1]).all()


def test_the_budget_is_one_for_all_namespaces(open_cache):
    budget = 32 * FRAME_BYTES
    one, other = open_cache(budget_bytes=budget), open_cache(namespace="another", budget_bytes=budget)
    fill(one, range(100))
    assert fill(other, range(10)) == 0
    assert other.stats().refused == 10
    one.close()
    other._ask_again_at = 0.0
    assert fill(other, range(10)) == 10


def test_the_last_user_removes_a_memory_cache(open_cache):
    first, second = open_cache(), open_cache()
    root = first._space.root
    fill(first, range(10))
    first.close()
    first.close()  # twice does no harm
    assert look(second, range(10)).all()
    second.close()
    assert not root.exists()
    third = open_cache()
    assert not look(third, range(10)).any()
    assert third.stats().used_bytes == 0


def test_a_cache_that_was_dropped_is_closed(open_cache, tmp_path):
    cache = FrameCache("memory", "dropped", budget_bytes=PLENTY, directory=tmp_path / "dropped")
    fill(cache, [1])
    root = cache._space.root
    before = len(os.listdir("/proc/self/fd"))
    del cache
    gc.collect()
    assert not root.exists()
    assert len(os.listdir("/proc/self/fd")) < before


def die_with_a_cache(kind: str, base: Path, namespace: str) -> None:
    """A process that fills a cache and is killed."""
    pid = os.fork()
    if pid == 0:
        cache = FrameCache(kind, namespace, budget_bytes=PLENTY, directory=base)
        fill(cache, range(100))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_leftovers_of_the_dead_are_purged(open_cache, tmp_path):
    base = tmp_path / "memory"
    alive = open_cache(namespace="alive")
    fill(alive, [1])
    die_with_a_cache("memory", base, "dead")
    assert len(chunk_files(base)) == 3
    opener = open_cache(namespace="next")
    assert len(chunk_files(base)) == 1
    assert look(alive, [1]).all()
    assert opener.stats().used_bytes == alive.stats().used_bytes == chunk_files(base)[0].stat().st_size
    die_with_a_cache("memory", base, "dead")
    assert purge_unused(alive._space.root) == 2 * chunk_files(base)[0].stat().st_size
    assert purge_unused(base / "nothing") == 0


def test_what_a_dead_run_left_of_the_same_dataset_is_used(open_cache, tmp_path):
    die_with_a_cache("memory", tmp_path / "memory", "a dataset, yuv420p")
    assert look(open_cache(), range(100)).all()


def test_a_disk_cache_outlives_its_users(open_cache, tmp_path):
    with open_cache("disk") as cache:
        fill(cache, range(50))
    again = open_cache("disk")
    assert look(again, range(50)).all()
    assert again.stats().used_bytes == sum(file.stat().st_size for file in chunk_files(tmp_path / "disk"))


def test_a_disk_cache_gives_up_unused_datasets_first(open_cache):
    budget = 80 * FRAME_BYTES
    for namespace in ("old", "older than nothing"):
        with open_cache("disk", namespace, budget_bytes=budget) as cache:
            fill(cache, range(40))
    new = open_cache("disk", "new", budget_bytes=budget)
    assert fill(new, range(40)) == 40
    assert new.stats().used_bytes <= budget
    with open_cache("disk", "old", budget_bytes=budget) as old:
        assert not look(old, range(40)).any()


def test_a_disk_cache_is_forgotten_when_the_machine_restarts(open_cache, monkeypatch, tmp_path):
    with open_cache("disk") as cache:
        fill(cache, range(50))
    monkeypatch.setattr(cache_space, "_boot_id", lambda: "0123abcd-another-boot")
    assert not look(open_cache("disk"), range(50)).any()
    assert not chunk_files(tmp_path / "disk")


def test_a_damaged_count_is_counted_anew(open_cache):
    cache = open_cache()
    fill(cache, range(100))
    used = cache.stats().used_bytes
    state = cache._space.root / "state"
    for damage in (b"", b"garbage of any length, longer than it", state.read_bytes()[:10]):
        state.write_bytes(damage)
        assert cache.stats().used_bytes == used > 0


def test_a_full_file_system_ends_admission_with_one_warning(open_cache, monkeypatch, caplog):
    cache = open_cache()
    fill(cache, range(10))
    real = os.pwrite

    def full(fd, data, at):
        if len(data) <= 1000:
            return real(fd, data, at)
        if len(data) > 2000:
            return real(fd, data[:1500], at)  # the first part still fits
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_chunk.os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        for start in range(0, 300, 20):
            fill(cache, range(start, start + 20))
    assert [record.getMessage().count("No space left on device") for record in caplog.records] == [1]
    monkeypatch.undo()
    assert look(cache, range(300)).tolist() == [True] * 10 + [False] * 290
    assert fill(cache, [200]) == 0


def test_a_refusing_kernel_does_not_reach_the_stream(tmp_path):
    code = f"""
import resource, signal, sys, numpy as np
from pathlib import Path
from lerobot_ray.data.cache import FrameCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = FrameCache("memory", "n", budget_bytes={PLENTY}, directory=Path(sys.argv[1]))
data = np.ones((64, 96, 100), np.uint8)
print(cache.put("front", np.arange(64), data))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))
print(cache.put("front", np.arange(64, 128), data))
print(cache.get("front", np.arange(128), np.zeros((128, 96, 100), np.uint8)).sum())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["64", "0", "64"]
    assert done.stderr.count("takes no more frames") == 1


def test_room_is_left_to_others(open_cache, monkeypatch, caplog):
    monkeypatch.setattr(cache_space, "FREE_SHARE", 1.0)
    cache = open_cache()
    with caplog.at_level(logging.WARNING):
        assert fill(cache, [1]) == fill(cache, [100]) == 0
    assert [("nearly full" in record.getMessage()) for record in caplog.records] == [True]


def test_a_folder_that_cannot_be_used_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"no frame cache can be made in .*file.*cache_dir"):
        FrameCache("memory", "n", budget_bytes=PLENTY, directory=tmp_path / "file")
    with FrameCache("memory", "n", budget_bytes=PLENTY, directory=tmp_path / "mine") as cache:
        root = cache._space.root
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is not this user's folder"):
        FrameCache("memory", "n", budget_bytes=PLENTY, directory=tmp_path / "mine")


def test_it_pickles_as_its_settings(open_cache):
    cache = open_cache(eviction="lru")
    fill(cache, [1])
    with pickle.loads(pickle.dumps(cache)) as copy:
        assert look(copy, [1]).all()
        assert copy.stats().kept == 0


def test_a_forked_child_takes_its_own_lease(open_cache):
    cache = open_cache()
    fill(cache, range(10))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ok = look(cache, range(10)).all() and fill(cache, [20]) == 1
            os.write(write, b"y" if ok else b"n")
            cache.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b"y"
    os.close(read)
    os.close(write)
    assert look(cache, [*range(10), 20]).all()


def test_threads_may_share_one(open_cache):
    cache = open_cache(budget_bytes=128 * FRAME_BYTES, eviction="lru", max_open=2)
    wrong: list[str] = []

    def use(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                rows = rng.integers(0, 300, 6)
                hits = look(cache, rows)
                fill(cache, rows[~hits]) if (~hits).any() else None
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_handles_stay_within_their_budget(open_cache):
    cache = open_cache(max_open=4)
    fill(cache, range(0, 64 * 20, 64))
    before = len(os.listdir("/proc/self/fd"))
    for start in range(0, 64 * 20, 64):
        assert look(cache, [start]).all()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert len(cache._chunks) == 4


def test_names_of_kinds(tmp_path):
    assert build_frame_cache("none", "n", budget_bytes=1) is None
    with build_frame_cache("memory", "n", budget_bytes=PLENTY, directory=tmp_path) as cache:
        assert fill(cache, [1]) == 1
    assert str(os.getuid()) in default_base("memory").name
    if os.access("/dev/shm", os.W_OK):
        assert default_base("memory").parent == Path("/dev/shm")
    assert default_base("disk").parent != Path("/dev/shm")


@pytest.mark.parametrize("eviction", ["keep", "lru"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize(("mode", "number", "budget_bytes"), [("steps", 6, 250_000), ("random", 20, 700_000)])
def test_processes_killed_at_any_instant(mode, number, kind, eviction, budget_bytes, tmp_path):
    """At every system call that changes something, and at random instants with three processes at work."""
    arguments = [mode, kind, tmp_path, eviction, budget_bytes, number, 7]
    done = subprocess.run([sys.executable, TORTURE, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
