"""`ObjectStorage` against a loopback S3, and against what fsspec knows."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import fsspec
import pytest
import torch

from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.data import Dataset
from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.remote import ObjectStorage
from lerobot_ray.data.retry import RetryPolicy
from lerobot_ray.data.storage import Storage, open_storage
from tests.s3_server import S3Server

QUICK = RetryPolicy(attempts=3, first_wait_s=0.01, longest_backoff_s=0.05)
BIG = bytes(range(256)) * 12_000
CONTENT = {
    "meta/info.json": b"{}",
    "data/chunk-000/file-000.parquet": b"rows" * 1000,
    "data/chunk-000/file-001.parquet": b"more" * 1000,
    "videos/front/chunk-000/file-000.mp4": BIG,
}
VIDEO = "videos/front/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def server():
    with S3Server() as s3:
        yield s3


@pytest.fixture
def s3(server, tmp_path, monkeypatch):
    """The dataset at s3://lab/pick, this process's environment set up to reach it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    server.faults.clear()
    server.put("lab", {f"pick/{path}": content for path, content in CONTENT.items()})
    server.put("lab", {"pick-and-place/meta/info.json": b"another"})
    return server


def open_s3(url="s3://lab/pick", **more):
    return ObjectStorage(url, **{"retry": QUICK, **more})


def bytes_of(storage, *paths):
    return [storage.local(path).read_bytes() for path in paths]


def gets(s3, path):
    return s3.requests(path, "GET")


def test_only_what_is_asked_for_is_fetched_and_once(s3, tmp_path):
    storage = open_s3()
    assert isinstance(storage, Storage)
    assert storage.glob("**/*") == sorted(CONTENT), "a neighbour with a longer name is not part of it"
    assert storage.glob("data/*/*.parquet") == sorted(path for path in CONTENT if path.startswith("data"))
    assert storage.exists(VIDEO)
    assert not storage.exists("videos")
    assert not gets(s3, "lab/")
    for _ in range(2):
        assert bytes_of(storage, VIDEO, "meta/info.json") == [BIG, b"{}"]
    assert storage.local(VIDEO).suffix == ".mp4"
    assert len(gets(s3, "mp4")) == len(gets(s3, "info.json")) == 1
    assert storage.identity() == "s3://lab/pick"


def test_an_endpoint_in_the_url(s3, monkeypatch):
    address = s3.endpoint.removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage = open_s3(f"s3://lab/pick?endpoint_override={address}&scheme=http")
    assert bytes_of(storage, *CONTENT) == list(CONTENT.values())


def test_open_storage_finds_it(s3):
    storage = open_storage("lab/pick", root="s3://lab/pick/")
    assert storage.identity() == "s3://lab/pick"
    assert bytes_of(storage, "meta/info.json") == [b"{}"]


def test_a_run_may_say_how_much_its_files_take(s3):
    storage = open_storage("lab/pick", root="s3://lab/pick", files_budget_bytes=123)
    assert pickle.loads(pickle.dumps(storage)).cache.budget_bytes == 123


def test_it_travels_with_its_listing_and_without_credentials(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")
    storage = open_s3()
    storage.local("meta/info.json")
    parcel = pickle.dumps(storage)
    assert b"a-very-secret-key" not in parcel
    s3.log.clear()
    again = pickle.loads(parcel)
    assert bytes_of(again, "meta/info.json") == [b"{}"]
    assert not s3.log
    assert bytes_of(again, VIDEO) == [BIG]


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@lab/pick",
        "s3://lab/pick?secret_key=abc",
        "https://host/pick?X-Amz-Signature=abc",
        "gs://anonymous:secret@lab/pick",
    ],
)
def test_credentials_in_a_url_are_refused(url):
    with pytest.raises(ConfigError, match="carries credentials") as error:
        ObjectStorage(url)
    for secret in ("secret@", "abc"):
        assert secret not in str(error.value)


def test_a_public_bucket_is_read_as_nobody():
    assert ObjectStorage("gs://anonymous@lab/pick").identity() == "gs://anonymous@lab/pick"


def test_look_ahead(s3):
    storage = open_s3()
    storage.prefetch(list(CONTENT))
    assert storage._ahead.wait(10)
    s3.log.clear()
    assert bytes_of(storage, *CONTENT) == list(CONTENT.values())
    assert not s3.log


def test_trouble_that_passes(s3):
    s3.fault("mp4", method="GET", times=2, status=503)
    s3.fault("info.json", method="GET", times=1, cut_after=1)
    assert bytes_of(open_s3(), VIDEO, "meta/info.json") == [BIG, b"{}"]


def test_trouble_that_stays(s3, tmp_path):
    s3.fault("mp4", method="GET", cut_after=1000)
    with pytest.raises(StorageError, match=rf"s3://lab/pick: {VIDEO} could not be fetched.*tried 3 times"):
        open_s3().local(VIDEO)
    assert not list((tmp_path / "cache/files").glob("s3--*/*"))


def test_refusals_say_what_to_do(s3):
    with pytest.raises(StorageError, match="There is nothing below s3://lab/nothing"):
        open_s3("s3://lab/nothing").files()
    with pytest.raises(StorageError, match=r"s3://nowhere/pick.*NO_SUCH_BUCKET.*Check the URL"):
        open_s3("s3://nowhere/pick").files()
    with pytest.raises(StorageError, match=r"s3://lab/pick has no file meta/inf.json. Did you mean meta/info.json"):
        open_s3().local("meta/inf.json")
    s3.fault("mp4", method="GET", status=403, code="AccessDenied")
    with pytest.raises(StorageError, match=r"ACCESS_DENIED.*AWS_ACCESS_KEY_ID"):
        open_s3().local(VIDEO)
    assert len(gets(s3, "mp4")) == 1


def test_an_object_that_changes_during_a_run_is_an_error(s3):
    storage = open_s3()
    storage.files()
    s3.put("lab", {"pick/meta/info.json": b"{ }"})
    with pytest.raises(StorageError, match=r"meta/info.json has been replaced since the run began"):
        storage.local("meta/info.json")
    s3.client().delete_object(Bucket="lab", Key=f"pick/{VIDEO}")
    with pytest.raises(StorageError, match="is gone"):
        storage.local(VIDEO)
    assert bytes_of(open_s3(), "meta/info.json") == [b"{ }"]


def test_the_budget_holds(s3, tmp_path):
    s3.put("lab", {"pick/data/chunk-000/file-002.parquet": b"last" * 1000})
    storage = open_s3(cache=FileCache(budget_bytes=9000, max_leases=1))
    for path in storage.glob("data/*/*.parquet"):
        storage.local(path)
    assert storage.cache.usage_bytes() == 8000
    s3.client().delete_object(Bucket="lab", Key="pick/data/chunk-000/file-002.parquet")
    with pytest.raises(StorageError, match="Raise the budget"):
        storage.local(VIDEO)


def elsewhere(code):
    prelude = f"""
        import sys, time
        from lerobot_ray.data.remote import ObjectStorage
        VIDEO = {VIDEO!r}
        storage = ObjectStorage("s3://lab/pick")
        storage.files()
    """
    script = textwrap.dedent(prelude) + textwrap.dedent(code)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", script], **pipes)


def test_processes_share_one_download_of_each_file(s3):
    code = """
        print("ready", flush=True)
        sys.stdin.readline()
        print(sum(len(storage.local(path).read_bytes()) for path in storage.glob("**/*")))
    """
    processes = [elsewhere(code) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert {process.communicate(timeout=60) for process in processes} == {(f"{sum(map(len, CONTENT.values()))}\n", "")}
    for path in CONTENT:
        assert len(gets(s3, path)) == 1, path


def test_a_downloader_killed_midway_leaves_nothing_half(s3, tmp_path):
    s3.fault("mp4", method="GET", times=1, delay_s=30)
    process = elsewhere("storage.local(VIDEO)")
    deadline = time.monotonic() + 20
    while not gets(s3, "mp4"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert bytes_of(open_s3(), VIDEO) == [BIG]
    assert not [p for p in (tmp_path / "cache/files/.partial").rglob("*") if p.is_file()]


def test_a_process_may_end_while_look_ahead_runs(s3):
    """pyarrow's S3 client crashes when its threads outlive the interpreter."""
    s3.fault("mp4", method="GET", delay_s=1.0)
    processes = [elsewhere(f"storage.prefetch([VIDEO]); time.sleep({wait_s})") for wait_s in (0, 0.2)]
    for process in processes:
        _, error = process.communicate(timeout=30)
        assert (process.returncode, error) == (0, "")


# Other stores


@pytest.fixture
def quiet_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))


def test_memory(quiet_cache):
    memory = fsspec.filesystem("memory")
    for path, content in CONTENT.items():
        memory.pipe(f"/shelf/pick/{path}", content)
    try:
        storage = open_s3("memory://shelf/pick")
        assert storage.glob("**/*") == sorted(CONTENT)
        assert bytes_of(storage, *CONTENT) == list(CONTENT.values())
        memory.pipe("/shelf/pick/meta/info.json", b"other")
        storage.cache.release()
        (storage.local("meta/info.json")).unlink()
        with pytest.raises(StorageError, match="replaced"):
            storage.local("meta/info.json")
    finally:
        memory.rm("/shelf", recursive=True)


def test_a_folder_by_url(quiet_cache, tmp_path):
    for path, content in CONTENT.items():
        (tmp_path / "shelf" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shelf" / path).write_bytes(content)
    storage = open_s3(f"file://{tmp_path}/shelf")
    assert bytes_of(storage, *storage.glob("**/*")) == [CONTENT[path] for path in sorted(CONTENT)]
    os.utime(tmp_path / "shelf/meta/info.json", (1, 1))


def test_an_unknown_scheme_is_named(quiet_cache):
    with pytest.raises(StorageError, match=r"carrier-pigeon://loft"):
        open_s3("carrier-pigeon://loft").files()


# A whole dataset


def test_a_dataset_reads_the_same_from_s3_and_from_a_folder(s3, toy_root):
    paths = [path for path in toy_root.rglob("*") if path.is_file()]
    s3.put("lab", {f"toy/{path.relative_to(toy_root)}": path.read_bytes() for path in paths})
    remote, local = Dataset("lab/toy", root="s3://lab/toy"), Dataset("lab/toy", root=toy_root)
    assert len(remote) == len(local)
    for key, value in local[20].items():
        assert torch.equal(remote[20][key], value) if isinstance(value, torch.Tensor) else remote[20][key] == value
