"""`HubStorage` against the loopback Hub: what it fetches, how often, and what it says when it cannot."""

import doctest
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

from lerobot_ray.core.errors import DatasetError, StorageError, VersionError
from lerobot_ray.data import Dataset
from lerobot_ray.data.file_cache import FileCache
from lerobot_ray.data.hub_revision import choose_commit
from lerobot_ray.data.remote import HubStorage
from lerobot_ray.data.retry import RetryPolicy, TransientError, asked_wait_s, call_with_retries
from lerobot_ray.data.storage import Storage, open_storage
from tests.hub_server import HubServer
from tests.make_dataset import make_dataset

pytestmark = pytest.mark.hub

QUICK = RetryPolicy(attempts=4, first_wait_s=0.01, longest_backoff_s=0.05, longest_wait_s=0.5)
BIG = bytes(range(256)) * 12_000
INFO = b'{"codebase_version": "v3.0"}'
CONTENT = {
    "meta/info.json": INFO,
    "data/chunk-000/file-000.parquet": b"rows" * 1000,
    "data/chunk-000/file-001.parquet": b"more" * 1000,
    "data/chunk-001/file-000.parquet": b"last" * 1000,
    "videos/observation.images.front/chunk-000/file-000.mp4": BIG,
    "README.md": b"A dataset.\n",
}
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with `alice/ds` (private, tagged v3.0), this process's environment pointing at it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer(tmp_path / "hub") as server:
        server.api = HfApi(endpoint=server.endpoint, token=server.add_user("alice"))
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.api.token)
        server.api.create_repo("alice/ds", repo_type="dataset", private=True)
        push(server, CONTENT)
        server.api.create_tag("alice/ds", tag="v3.0", repo_type="dataset")
        server.book.log.clear()
        yield server


def push(hub, files, repo_id="alice/ds"):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return hub.api.create_commit(repo_id, operations, commit_message="x", repo_type="dataset").oid


def open_hub(revision=None, repo_id="alice/ds", **more):
    return HubStorage(repo_id, revision, **{"retry": QUICK, **more})


def gets(hub, path):
    return hub.requests(f"/resolve/.*{path}", "GET")


def bytes_of(storage, *paths):
    return [storage.local(path).read_bytes() for path in paths]


def whole_files(tmp_path):
    return list((tmp_path / "cache/files").glob("hub--*/*"))


# Reading


def test_only_what_is_asked_for_is_fetched_and_once(hub, tmp_path):
    storage = open_hub()
    assert isinstance(storage, Storage)
    assert storage.exists("meta/info.json")
    assert not storage.exists("meta/stats.json")
    assert storage.glob("data/*/*.parquet") == sorted(path for path in CONTENT if path.startswith("data/"))
    assert storage.glob("*.md") == ["README.md"]
    assert storage.glob("videos/**/*.mp4") == [VIDEO]
    assert not gets(hub, "")
    for _ in range(2):
        assert bytes_of(storage, VIDEO, "meta/info.json") == [BIG, INFO]
    assert storage.local(VIDEO).suffix == ".mp4"
    assert len(gets(hub, "")) == 2
    assert len(hub.requests("/tree/")) == len(hub.requests("/refs")) == 1
    assert len(whole_files(tmp_path)) == 2


def test_paged_listings_and_redirects_to_another_origin(hub):
    hub.page_size, hub.cdn_endpoint = 2, hub.endpoint.replace("127.0.0.1", "localhost")
    storage = open_hub()
    assert len(storage.glob("**/*")) == len(CONTENT) + 1  # and .gitattributes
    assert bytes_of(storage, *CONTENT) == list(CONTENT.values())
    assert {r.status for r in hub.requests("/cdn/")} == {200}  # the server answers 400 when a token arrives there


def test_it_reads_one_commit_whatever_happens_to_the_branch(hub):
    storage = open_hub("main")
    push(hub, {"meta/info.json": b"{}", "data/chunk-000/file-009.parquet": b"new"})
    assert bytes_of(storage, "meta/info.json") == [INFO]
    assert not storage.exists("data/chunk-000/file-009.parquet")
    later = open_hub("main")
    assert bytes_of(later, "meta/info.json") == [b"{}"]
    assert storage.identity() == f"alice/ds@{storage.commit}" != later.identity()
    assert bytes_of(later, VIDEO) == [BIG]
    hub.book.log.clear()
    assert bytes_of(storage, VIDEO) == [BIG]
    assert not hub.requests(), "the same bytes under two commits are one file here"


def test_it_travels_to_other_processes_without_a_token(hub, monkeypatch):
    storage = open_hub()
    storage.local("meta/info.json")
    storage.prefetch(["README.md"])
    assert storage._ahead.wait(10)
    parcel = pickle.dumps(storage)
    assert hub.api.token.encode() not in parcel
    hub.book.log.clear()
    again = pickle.loads(parcel)
    assert again.identity() == storage.identity()
    assert bytes_of(again, "meta/info.json", "README.md") == [INFO, CONTENT["README.md"]]
    assert not hub.requests(), "resolved, listed and fetched already"
    monkeypatch.delenv("HF_ENDPOINT")
    assert bytes_of(again, VIDEO) == [BIG], "where it was opened, HF_ENDPOINT was set"


def test_open_storage_finds_it(hub):
    assert isinstance(open_storage("alice/ds"), HubStorage)


def test_look_ahead_fetches_and_says_nothing_of_failures(hub):
    hub.fault("file-001.parquet", method="GET", status=404)
    storage = open_hub()
    storage.prefetch([VIDEO, "data/chunk-000/file-001.parquet", "no/such.file"])
    assert storage._ahead.wait(10)
    assert len(gets(hub, "mp4")) == 1
    assert bytes_of(storage, VIDEO) == [BIG]
    assert len(gets(hub, "mp4")) == 1
    with pytest.raises(StorageError, match="file-001"):
        storage.local("data/chunk-000/file-001.parquet")


def test_look_ahead_keeps_within_a_quarter_of_the_budget(hub, tmp_path):
    cache = FileCache(budget_bytes=4 * 4000 + 400)
    storage = open_hub(cache=cache)
    paths = storage.glob("data/*/*.parquet")
    storage.prefetch(paths)
    assert storage._ahead.wait(10)
    assert len(gets(hub, "parquet")) == 1
    storage.local(paths[0])
    storage.prefetch(paths[1:])
    assert storage._ahead.wait(10)
    assert len(gets(hub, "parquet")) == 2


def test_the_budget_holds(hub, tmp_path):
    storage = open_hub(cache=FileCache(budget_bytes=9000, max_leases=1))
    for path in storage.glob("data/*/*.parquet"):
        storage.local(path)
        assert storage.cache.usage_bytes() <= 9000
    assert len(whole_files(tmp_path)) == 2


def test_the_page_shows_what_happens(hub):
    page = Path(__file__).parents[2] / "docs/storage.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, verbose=False)
    assert (failed, tried) == (0, 4)


# Trouble


def test_a_storm_of_429_is_waited_out(hub):
    hub.fault("/refs", status=429, times=2, retry_after_s=0.01)
    hub.fault("/resolve/.*mp4", status=429, times=3, retry_after_s=0.2)
    begin = time.monotonic()
    assert bytes_of(open_hub(), VIDEO) == [BIG]
    assert time.monotonic() - begin > 0.6, "Retry-After was not honoured"
    assert [r.status for r in gets(hub, "mp4")] == [429, 429, 429, 200]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_pass_or_end_in_a_clear_error(hub, status):
    hub.fault("/resolve/.*info", status=status, times=2)
    hub.fault("/resolve/.*README", status=status)
    storage = open_hub()
    assert bytes_of(storage, "meta/info.json") == [INFO]
    with pytest.raises(StorageError, match=rf"alice/ds \(revision v3.0\): README.md.*{status}.*4 times"):
        storage.local("README.md")
    assert len(gets(hub, "README")) == QUICK.attempts


def test_a_cut_connection_goes_on_where_it_broke(hub):
    hub.fault("/resolve/.*mp4", cut_after=1_000_000, times=2)
    assert bytes_of(open_hub(), VIDEO) == [BIG]
    ranges = [request.range for request in gets(hub, "mp4")]
    assert ranges[0] == ""
    assert all(r.startswith("bytes=") for r in ranges[1:])
    assert sum(request.sent_bytes for request in gets(hub, "mp4")) < 1.5 * len(BIG)


def test_a_line_that_always_breaks_still_gets_there(hub):
    """More cuts than attempts: progress between them is what counts."""
    hub.fault("/resolve/.*mp4", cut_after=400_000)
    assert bytes_of(open_hub(), VIDEO) == [BIG]
    assert len(gets(hub, "mp4")) > QUICK.attempts


def test_a_body_that_is_not_what_was_listed_is_never_used(hub, tmp_path):
    hub.fault("/resolve/.*mp4", corrupt=True, times=1)
    hub.fault("/resolve/.*README", corrupt=True)
    storage = open_hub()
    assert bytes_of(storage, VIDEO) == [BIG]
    assert len(gets(hub, "mp4")) == 2
    with pytest.raises(StorageError, match=r"README.md.*git digest"):
        storage.local("README.md")
    assert [path.read_bytes() for path in whole_files(tmp_path)] == [BIG]


def test_what_an_older_failure_left_is_checked_too(hub, tmp_path):
    storage = open_hub()
    file = storage.files()[VIDEO]
    partial = tmp_path / f"cache/files/.partial/{storage._key(VIDEO, file)}.{file.size_bytes}"
    partial.parent.mkdir(parents=True)
    for left in (b"\0" * 1000, b"\0" * len(BIG), b"\0" * (len(BIG) + 5)):
        storage.cache.release()
        for path in whole_files(tmp_path):
            path.unlink()
        partial.write_bytes(left)
        assert bytes_of(storage, VIDEO) == [BIG]


def test_a_missing_file_is_named_with_its_neighbour(hub):
    with pytest.raises(StorageError, match=r"alice/ds \(revision v3.0\) has no file meta/inf.json.*meta/info.json"):
        open_hub().local("meta/inf.json")


def test_a_private_repo_without_a_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StorageError, match="private and no token is set: set HF_TOKEN"):
        open_hub()


def test_a_token_without_access(hub, monkeypatch):
    stranger = hub.add_user("bob")
    monkeypatch.setenv("HF_TOKEN", stranger)
    with pytest.raises(StorageError, match="no access to it") as error:
        open_hub()
    monkeypatch.setenv("HF_TOKEN", "hf_notatoken")
    with pytest.raises(StorageError, match="is not accepted") as other:
        open_hub()
    assert stranger not in str(error.value)
    assert "hf_notatoken" not in str(other.value)


def test_a_token_that_expires_during_the_run(hub, monkeypatch):
    storage = open_hub()
    storage.files()
    hub.users.clear()
    with pytest.raises(StorageError, match="401") as error:
        storage.local(VIDEO)
    assert hub.api.token not in str(error.value)
    assert len(gets(hub, "mp4")) == 1, "this does not pass by waiting"


def test_a_gated_repo(hub):
    storage = open_hub()
    storage.files()
    hub.fault("/resolve/", status=403, code="GatedRepo")
    with pytest.raises(StorageError, match=f"accept its terms at {hub.endpoint}/datasets/alice/ds"):
        storage.local(VIDEO)


def test_a_hub_that_is_not_there(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9 does not give its branches.*HF_HUB_OFFLINE"):
        open_hub()


def test_a_full_disk_is_not_taken_for_a_bad_line(hub):
    with pytest.raises(StorageError, match=r"cannot be written.*LEROBOT_RAY_CACHE"):
        open_hub(cache=FileCache("/dev/null/cache"))
    storage = open_hub()
    storage.files()
    limited = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try: storage.local(VIDEO)
        except Exception as error: print(type(error).__name__, error)
    """
    out = elsewhere(limited).communicate(timeout=30)[0]
    assert out.startswith("StorageError")
    assert "File too large" in out
    assert "LEROBOT_RAY_CACHE" in out
    assert len(gets(hub, "mp4")) == 1


def test_somebody_waiting_at_a_terminal_sees_a_bar(hub, monkeypatch, capsys):
    monkeypatch.setattr("lerobot_ray.data.remote_files.PROGRESS_FROM_BYTES", 100_000)
    storage = open_hub()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert bytes_of(storage, VIDEO, "meta/info.json") == [BIG, INFO]
    shown = capsys.readouterr().err
    assert VIDEO in shown
    assert "info.json" not in shown


# Several processes


def elsewhere(code):
    prelude = f"""
        import sys
        from lerobot_ray.data.remote import HubStorage
        from lerobot_ray.data.retry import RetryPolicy
        VIDEO = {VIDEO!r}
        storage = HubStorage("alice/ds", retry=RetryPolicy(first_wait_s=0.01))
    """
    script = textwrap.dedent(prelude) + textwrap.dedent(code)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", script], **pipes)


def test_processes_share_one_download_of_each_file(hub):
    code = """
        paths = storage.glob("**/*.*")
        print("ready", flush=True)
        sys.stdin.readline()
        storage.prefetch(paths[::-1])
        print(sum(len(storage.local(path).read_bytes()) for path in paths))
    """
    processes = [elsewhere(code) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert len({int(out) for out, _ in outputs}) == 1
    assert [error for _, error in outputs] == [""] * 4
    for path in (*CONTENT, ".gitattributes"):
        assert len(gets(hub, path)) == 1, path
    assert len(hub.requests("/tree/")) == 1


def test_a_downloader_killed_midway_leaves_nothing_half(hub, tmp_path):
    hub.fault("/resolve/.*mp4", bytes_per_s=2_000_000, times=1)
    process = elsewhere("storage.local(VIDEO)")
    partials = tmp_path / "cache/files/.partial"
    deadline = time.monotonic() + 20
    while not any(p.stat().st_size > 200_000 for p in partials.rglob("*.*") if p.is_file()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not whole_files(tmp_path)
    assert bytes_of(open_hub(), VIDEO) == [BIG]
    assert gets(hub, "mp4")[-1].range.startswith("bytes=")
    assert not [p for p in partials.rglob("*") if p.is_file()]


def test_a_process_may_end_while_look_ahead_runs(hub):
    hub.fault("/resolve/.*mp4", bytes_per_s=100_000)
    code = """
        import time
        storage.files()
        storage.prefetch([VIDEO])
        time.sleep(0.5)
        print("leaving")
    """
    begin = time.monotonic()
    process = elsewhere(code)
    out, error = process.communicate(timeout=30)
    assert (out, error, process.returncode) == ("leaving\n", "", 0)
    assert time.monotonic() - begin < 15, "the file alone takes 30 s"


# Offline, and snapshots that are there already


def test_offline_reads_what_is_here_and_names_what_is_not(hub, monkeypatch):
    open_hub().local("meta/info.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.book.log.clear()
    storage = open_hub()
    assert bytes_of(storage, "meta/info.json") == [INFO]
    assert len(storage.glob("data/*/*.parquet")) == 3
    with pytest.raises(StorageError, match=rf"{VIDEO} is not on this machine and HF_HUB_OFFLINE"):
        storage.local(VIDEO)
    with pytest.raises(StorageError, match="alice/ds is not on this machine at revision main"):
        open_hub("main")
    with pytest.raises(StorageError, match="HF_HUB_OFFLINE"):
        open_hub("0" * 40).glob("*")
    assert not hub.requests()


def test_snapshots_that_lerobot_left_are_used_and_not_touched(hub, tmp_path, monkeypatch):
    home = tmp_path / "lerobot" / "hub"
    snapshot_download(
        "alice/ds",
        repo_type="dataset",
        revision="v3.0",
        cache_dir=str(home),
        endpoint=hub.endpoint,
        token=hub.api.token,
        allow_patterns=["meta/*", "videos/**"],
    )
    before = sorted((p, p.lstat().st_mtime_ns) for p in home.rglob("*"))
    hub.book.log.clear()
    storage = open_hub()
    assert bytes_of(storage, "meta/info.json", VIDEO) == [INFO, BIG]
    assert not gets(hub, "")
    assert bytes_of(storage, "README.md") == [CONTENT["README.md"]]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "another"))
    offline = open_hub()
    assert offline.commit == storage.commit
    assert offline.glob("**/*.mp4") == [VIDEO]
    assert bytes_of(offline, VIDEO) == [BIG]
    assert sorted((p, p.lstat().st_mtime_ns) for p in home.rglob("*")) == before


# Revisions


def test_revisions_on_the_hub(hub):
    head = push(hub, {"meta/info.json": b"{}"})
    hub.api.create_branch("alice/ds", branch="feat/x", repo_type="dataset", revision="v3.0")
    tagged = open_hub().commit
    assert open_hub("v3.0").commit == open_hub("feat/x").commit == open_hub(tagged).commit == tagged != head
    assert open_hub("main").commit == open_hub(head).commit == head
    assert open_hub("v3.7").commit == tagged
    assert bytes_of(open_hub("feat/x"), "meta/info.json") == [INFO]
    with pytest.raises(StorageError, match=r"no branch, tag or commit 'nowhere'. It has the branches feat/x, main"):
        open_hub("nowhere")
    with pytest.raises(StorageError, match="no such revision"):
        open_hub("0" * 40).files()


def test_a_dataset_without_a_version_tag(hub):
    hub.api.create_repo("alice/untagged", repo_type="dataset")
    with pytest.raises(VersionError, match=r"no version tag.*create_tag\('alice/untagged'"):
        open_hub(repo_id="alice/untagged")
    hub.api.create_tag("alice/untagged", tag="v2.1", repo_type="dataset")
    with pytest.raises(VersionError, match=r"format v2.1.*convert_dataset_v21_to_v30 --repo-id=alice/untagged"):
        open_hub(repo_id="alice/untagged")


@pytest.mark.parametrize(
    ("tags", "revision", "expected"),
    [
        (["v3.0"], "v3.0", "v3.0"),
        (["v2.1", "v3.0", "v3.1"], "v3.0", "v3.0"),
        (["v2.1", "v3.0", "v3.1"], "v3.1", "v3.1"),
        (["v2.1", "v3.0", "v3.1"], "v3.5", "v3.1"),
        (["v3.0", "v3.2", "v3.10"], "v3.9", "v3.2"),
        (["v3.0.1"], "v3.0", "v3.0.1"),
        (["3.0"], "v3.0", "3.0"),
        (["v3.0", "step-000100", "best"], "v3.3", "v3.0"),
        (["step-1"], "step-1", "step-1"),
    ],
)
def test_the_revision_rule(tags, revision, expected):
    refs = {tag: f"commit of {tag}" for tag in tags}
    assert choose_commit("a/b", revision, branches={"main": "head"}, tags=refs) == f"commit of {expected}"


@pytest.mark.parametrize(
    ("tags", "revision", "error", "words"),
    [
        ([], "v3.0", VersionError, "no version tag"),
        (["final"], "v3.0", VersionError, "the tag final"),
        (["v2.0", "v2.1"], "v3.0", VersionError, "in format v2.1.*convert_dataset"),
        (["v1.6", "v4.0"], "v3.0", VersionError, "in format v1.6"),
        (["v3.1", "v4.0"], "v3.0", VersionError, "only versions newer than v3.0.*Upgrade"),
        (["v3.0"], "dev", StorageError, "no branch, tag or commit 'dev'"),
    ],
)
def test_revisions_that_cannot_be(tags, revision, error, words):
    refs = dict.fromkeys(tags, "commit")
    with pytest.raises(error, match=words) as raised:
        choose_commit("a/b", revision, branches={"main": "head"}, tags=refs)
    assert "the branch main" in str(raised.value)
    assert isinstance(raised.value, (DatasetError, StorageError))


# Waiting


def test_waits_grow_and_scatter_and_obey():
    policy = RetryPolicy(first_wait_s=1, longest_backoff_s=10, longest_wait_s=100)
    waits = [[policy.wait_s(failures, None) for _ in range(200)] for failures in (1, 2, 3, 9)]
    for drawn, most in zip(waits, (1, 2, 4, 10), strict=True):
        assert most / 2 <= min(drawn) < max(drawn) <= most
        assert max(drawn) - min(drawn) > most / 4
    assert 30 <= policy.wait_s(1, 30) <= 33
    assert 100 <= policy.wait_s(1, 3600) <= 110


def test_progress_starts_the_count_again():
    failures = [TransientError("x", progressed=p) for p in (False, False, True, False, False, False)]
    outcomes = iter([*failures, "done"])

    def call():
        outcome = next(outcomes)
        if isinstance(outcome, TransientError):
            raise outcome
        return outcome

    with pytest.raises(TransientError):
        call_with_retries(call, what="x", policy=RetryPolicy(attempts=4, first_wait_s=0))
    assert list(outcomes) == ["done"]


def test_what_servers_ask_for():
    assert asked_wait_s({"Retry-After": "12"}) == 12
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < asked_wait_s({"retry-after": soon}) <= 30
    assert asked_wait_s({"RateLimit": '"api";r=0;t=55'}) == 55
    assert asked_wait_s({"Retry-After": "soon"}) is None
    assert asked_wait_s({}) is None


def test_errors_cross_processes(hub):
    with pytest.raises(StorageError) as error:
        open_hub().local("nothing")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    again = pickle.loads(pickle.dumps(TransientError("x", 3.0, True)))
    assert (str(again), again.retry_after_s, again.progressed) == ("x", 3.0, True)
    assert Path(hub.store.root).is_dir()


# A whole dataset


def test_a_dataset_reads_the_same_from_the_hub_and_from_a_folder(hub, tmp_path):
    root = make_dataset(tmp_path / "toy", files="many")
    hub.api.create_repo("alice/toy", repo_type="dataset")
    hub.api.upload_folder(repo_id="alice/toy", repo_type="dataset", folder_path=str(root))
    hub.api.create_tag("alice/toy", tag="v3.0", repo_type="dataset")
    hub.book.log.clear()
    remote, local = Dataset("alice/toy", episodes=[1]), Dataset("alice/toy", root=root, episodes=[1])
    assert len(remote) == len(local) > 0
    assert not gets(hub, "mp4"), "opening reads meta/ only"
    for index in (0, len(local) - 1):
        ours, theirs = remote[index], local[index]
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
    videos = len(list(root.glob("videos/*/*/*.mp4")))
    assert 0 < len(gets(hub, "mp4")) < videos, "fetched videos of episodes nobody asked for"
