"""The node's files: whole or absent, one download per node, the budget, leases, and processes that die."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.lookahead import LookAhead


def writes(content: bytes, calls: list | None = None):
    def fetch(file):
        if calls is not None:
            calls.append(1)
        file.seek(0)
        file.write(content)

    return fetch


def get(cache, key, content, **more):
    return cache.get(key, writes(content), size_bytes=len(content), **more)


def put(cache, key, size, *, age_s=0):
    """A file of this size in the cache, unleased, last used `age_s` ago."""
    path = get(cache, key, b"x" * size, for_later=True)
    os.utime(path, (time.time() - age_s, path.stat().st_mtime))
    return path


def names(cache):
    return sorted(path.name for path in cache.root.glob("src/*"))


def partials(cache):
    return [path for path in (cache.root / ".partial").rglob("*") if path.is_file()]


def wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def run_elsewhere(code, *arguments, **how):
    """A process of its own that has `FileCache` and the arguments; `held` waits for a line on its standard input."""
    prelude = """
        import sys, time
        from lerobot_ray.data.file_cache import FileCache
        args = sys.argv[1:]
    """
    script = textwrap.dedent(prelude) + textwrap.dedent(code)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], **pipes)


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "files")


def test_a_file_is_fetched_once(cache):
    calls = []
    for _ in range(3):
        path = cache.get("src/a.bin", writes(b"content", calls), size_bytes=7)
        assert path.read_bytes() == b"content"
    assert calls == [1]
    assert cache.usage_bytes() == 7
    assert cache.has("src/a.bin")
    assert not partials(cache)


def test_a_short_file_is_never_taken_for_a_whole_one(cache):
    with pytest.raises(StorageError, match="fetched 4 bytes where 7"):
        cache.get("src/a.bin", writes(b"half"), size_bytes=7)
    assert names(cache) == []
    assert get(cache, "src/a.bin", b"content").read_bytes() == b"content"


def test_a_failed_fetch_leaves_its_beginning_for_the_next(cache):
    def fails(file):
        file.write(b"con")
        raise StorageError("the line went dead")

    with pytest.raises(StorageError, match="went dead"):
        cache.get("src/a.bin", fails, size_bytes=7)
    assert names(cache) == []

    def continues(file):
        assert file.read() == b"con"
        file.write(b"tent")

    assert cache.get("src/a.bin", continues, size_bytes=7).read_bytes() == b"content"


def test_many_threads_fetch_one_file_once(cache):
    calls, paths = [], []

    def slow(file):
        calls.append(1)
        time.sleep(0.1)
        file.write(b"content")

    threads = [threading.Thread(target=lambda: paths.append(cache.get("src/a", slow, size_bytes=7))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert {path.read_bytes() for path in paths} == {b"content"}
    assert len(paths) == 16


def test_the_longest_unused_goes_first(cache):
    cache = FileCache(cache.root, budget_bytes=100)
    for key, age_s in (("src/old", 300), ("src/older", 900), ("src/new", 10)):
        put(cache, key, 30, age_s=age_s)
    get(cache, "src/older", b"x" * 30, for_later=True)  # used again: now the youngest
    put(cache, "src/next", 40)
    assert names(cache) == ["new", "next", "older"]
    assert cache.usage_bytes() <= 100


def test_a_leased_file_stays_though_it_is_the_oldest(cache):
    holder = FileCache(cache.root)
    cache = FileCache(cache.root, budget_bytes=100)
    held = get(holder, "src/held", b"x" * 40)
    os.utime(held, (0, 0))
    put(cache, "src/idle", 40, age_s=10)
    put(cache, "src/next", 40)
    assert names(cache) == ["held", "next"]
    holder.release()
    put(cache, "src/more", 40)
    assert names(cache) == ["more", "next"]


def test_when_all_is_leased_the_budget_gives_way_with_a_warning(cache, caplog):
    cache = FileCache(cache.root, budget_bytes=100)
    for key in ("src/a", "src/b", "src/c", "src/d"):
        get(cache, key, b"x" * 40)
    assert names(cache) == ["a", "b", "c", "d"]
    assert caplog.text.count("more than the budget") == 1


def test_leases_are_of_the_files_handed_out_last(cache):
    cache = FileCache(cache.root, budget_bytes=100, max_leases=1)
    get(cache, "src/a", b"x" * 40)
    get(cache, "src/b", b"x" * 40)
    get(cache, "src/c", b"x" * 40)
    assert names(cache) == ["b", "c"]


def test_a_file_larger_than_the_budget_is_refused(cache):
    cache = FileCache(cache.root, budget_bytes=100)
    with pytest.raises(StorageError, match=r"a has 101 bytes.*budget of 100.*Raise the budget"):
        put(cache, "src/a", 101)


def test_the_budget_may_come_from_the_environment(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("LEROBOT_RAY_FILES_BUDGET_BYTES", "50")
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "home"))
    elsewhere = FileCache()
    assert (elsewhere.budget_bytes, elsewhere.root) == (50, tmp_path / "home" / "files")
    monkeypatch.setenv("LEROBOT_RAY_FILES_BUDGET_BYTES", "50GB")
    with pytest.raises(ConfigError, match="not a number of bytes"):
        _ = elsewhere.budget_bytes
    with pytest.raises(ConfigError, match="positive"):
        FileCache(budget_bytes=0)


def test_an_evicted_file_that_is_open_stays_readable(cache):
    cache = FileCache(cache.root, budget_bytes=100)
    with open(put(cache, "src/a", 60), "rb") as file:
        put(cache, "src/b", 60)
        assert names(cache) == ["b"]
        assert file.read() == b"x" * 60


def test_what_somebody_deleted_by_hand_is_fetched_again(cache):
    for path in (get(cache, "src/a", b"one"), get(cache, "src/a", b"one")):
        path.unlink()
        assert get(cache, "src/a", b"one").read_bytes() == b"one"


def test_it_pickles_without_its_leases(cache):
    cache = FileCache(cache.root, budget_bytes=100, max_leases=3)
    get(cache, "src/a", b"one")
    again = pickle.loads(pickle.dumps(cache))
    assert (again.root, again.budget_bytes, again.max_leases, len(again._leases)) == (cache.root, 100, 3, 0)


def test_notes_are_made_once(cache):
    calls = []
    assert cache.read_note("src/list.json") is None
    for _ in range(2):
        assert cache.note("src/list.json", lambda: calls.append(1) or b"[]") == b"[]"
    assert calls == [1]
    assert cache.usage_bytes() == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"file/.lease.*LEROBOT_RAY_CACHE"):
        get(FileCache(tmp_path / "file"), "src/a", b"one")


# Other processes


def test_several_processes_fetch_one_file_once(cache, tmp_path):
    code = """
        def fetch(file):
            with open(args[1], "a") as calls: calls.write("x")
            time.sleep(0.3)
            file.write(b"content")
        sys.stdin.readline()
        print(FileCache(args[0]).get("src/a", fetch, size_bytes=7).read_bytes().decode())
    """
    processes = [run_elsewhere(code, cache.root, tmp_path / "calls") for _ in range(4)]
    outputs = []
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(process.communicate(timeout=30)[0])
    assert outputs == ["content\n"] * 4
    assert (tmp_path / "calls").read_text() == "x"


def test_a_killed_downloader_holds_nobody_up(cache):
    code = """
        def fetch(file):
            file.write(b"con"); file.flush()
            print("half", flush=True)
            time.sleep(60)
        FileCache(args[0]).get("src/a", fetch, size_bytes=7)
    """
    with run_elsewhere(code, cache.root) as process:
        assert process.stdout.readline() == "half\n"
        done = []

        def continues(file):
            assert file.read() == b"con"
            file.write(b"tent")
            done.append(time.monotonic())

        waiter = threading.Thread(target=lambda: cache.get("src/a", continues, size_bytes=7))
        waiter.start()
        time.sleep(0.2)
        assert not done, "two downloads of one file at once"
        process.send_signal(signal.SIGKILL)
        waiter.join(10)
    assert (cache.root / "src/a").read_bytes() == b"content"
    assert not partials(cache)


def test_a_killed_holder_frees_its_leases(cache):
    cache = FileCache(cache.root, budget_bytes=100)
    code = """
        def fetch(file): file.write(b"x" * 60)
        FileCache(args[0]).get("src/a", fetch, size_bytes=60)
        print("held", flush=True)
        time.sleep(60)
    """
    with run_elsewhere(code, cache.root) as process:
        assert process.stdout.readline() == "held\n"
        put(cache, "src/b", 30)
        put(cache, "src/c", 30)
        assert "a" in names(cache), "removed what another process holds"
        process.kill()
    put(cache, "src/d", 60, age_s=0)
    assert "a" not in names(cache)


def test_what_killed_downloads_left_makes_room(cache):
    cache = FileCache(cache.root, budget_bytes=100)
    left = cache.root / ".partial" / "src" / "dead.90"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 80)
    put(cache, "src/small", 15)
    assert left.exists(), "thrown away without need: it might have been continued"
    put(cache, "src/a", 50)
    assert not left.exists()
    assert names(cache) == ["a", "small"]


def test_a_download_under_way_counts_with_its_full_size(cache):
    cache = FileCache(cache.root, budget_bytes=100)
    put(cache, "src/old", 50, age_s=100)
    code = """
        def fetch(file):
            print("begun", flush=True)
            sys.stdin.readline()
            file.write(b"x" * 45)
        FileCache(args[0], budget_bytes=100).get("src/a", fetch, size_bytes=45)
        print("done", flush=True)
    """
    with run_elsewhere(code, cache.root) as process:
        assert process.stdout.readline() == "begun\n"
        assert names(cache) == ["old"]
        put(cache, "src/b", 20)
        assert names(cache) == ["b"]
        process.communicate("go\n", timeout=10)
    assert names(cache) == ["a", "b"]


def test_processes_that_fight_over_a_small_budget_all_read_true_content(cache):
    """Eviction, re-fetching and leases in five processes at once; two of them are killed."""
    code = """
        import os, random
        cache, rng = FileCache(args[0], budget_bytes=100, max_leases=2), random.Random(int(args[1]))
        for turn in range(150):
            n = rng.randrange(8)
            content = bytes([65 + n]) * 30
            def fetch(file):
                file.seek(0); file.truncate(0)
                for byte in range(30): file.write(content[byte:byte + 1])
            path = cache.get(f"src/{n}", fetch, size_bytes=30)
            assert path.read_bytes() == content, path
            if turn == 5: print("running", flush=True)
        print("fine")
    """
    processes = [run_elsewhere(code, cache.root, seed) for seed in range(5)]
    for process in processes:
        assert process.stdout.readline() == "running\n"
    for process in processes[:2]:
        process.kill()
    outputs = [process.stdout.read() for process in processes]
    assert outputs[2:] == ["fine\n"] * 3
    for process in processes:
        process.communicate(timeout=60)
    put(FileCache(cache.root, budget_bytes=100), "src/last", 100)
    assert names(cache) == ["last"]


# Look-ahead


def test_look_ahead_bounds_its_parallelism_and_skips_repeats():
    running, most, done, lock = [], [], [], threading.Lock()

    def fetch(path):
        with lock:
            running.append(path)
            most.append(len(running))
        time.sleep(0.02)
        with lock:
            running.remove(path)
            done.append(path)

    ahead = LookAhead(fetch, parallel=3)
    paths = [f"f{n}" for n in range(20)]
    ahead.add(paths)
    ahead.add(paths)
    assert ahead.wait(10)
    assert sorted(done) == sorted(paths)
    assert max(most) == 3
    ahead.stop()


def test_look_ahead_swallows_failures_and_goes_on():
    done = []

    def fetch(path):
        if path == "bad":
            raise StorageError("gone")
        done.append(path)

    ahead = LookAhead(fetch, parallel=1)
    ahead.add(["bad", "good"])
    assert ahead.wait(10)
    assert done == ["good"]
    ahead.stop()


def test_look_ahead_stops_at_the_next_chunk():
    begun = threading.Event()

    def fetch(path):
        begun.set()
        while True:
            ahead.check()
            time.sleep(0.01)

    ahead = LookAhead(fetch, parallel=1)
    ahead.add(["endless", "never begun"])
    assert begun.wait(10)
    begin = time.monotonic()
    ahead.stop()
    assert time.monotonic() - begin < 1.5
    wait_for(lambda: not ahead._threads)
    ahead.check()  # in a thread that is not the look-ahead's, nothing happens
