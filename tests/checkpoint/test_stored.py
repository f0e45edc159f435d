"""A store shows whole checkpoints only, whatever was cut off, and gives back the bytes that were saved."""

import json
import pickle

import pytest

from lerobot_ray.checkpoint.commit import complete_checkpoints, verify
from lerobot_ray.checkpoint.store import RunStore, below
from lerobot_ray.checkpoint.stored import (
    bring_back,
    fetch_by_url,
    fetch_checkpoint,
    fetched_on_this_node,
    is_stored,
    remove_stored,
    stored_steps,
    sweep_stored,
    upload_checkpoint,
    upload_small_files,
)
from lerobot_ray.core.errors import CheckpointError, ConfigError, StorageError
from tests.checkpoint.stores import IMPATIENT, save, store_in
from tests.s3_server import S3Server

WEIGHTS = "pretrained_model/model.safetensors"


@pytest.fixture(scope="module")
def server():
    with S3Server() as server:
        server.put("bucket", {"elsewhere": b""})
        yield server


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    yield server
    server.faults.clear()


@pytest.fixture
def store(s3, tmp_path):
    return store_in(s3, tmp_path)


@pytest.mark.parametrize("kind", ["s3", "s3, by flag", "folder", "memory"])
def test_what_is_copied_comes_back_whole(s3, kind, tmp_path, monkeypatch):
    store = store_in(s3, tmp_path, kind)
    if kind == "s3, by flag":
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        assert "endpoint_override" not in store.url
    pickle.loads(pickle.dumps(store)).probe()
    assert stored_steps(store) == {}
    run, other = tmp_path / "run", tmp_path / "other"
    upload_checkpoint(store, save(run, 4))
    upload_checkpoint(store, checkpoint := save(run, 12))
    assert stored_steps(store) == {4: "000004", 12: "000012"}
    assert is_stored(store, checkpoint)
    back = fetch_checkpoint(store, "000012", other)
    verify(back)
    assert complete_checkpoints(other) == [back]
    assert (other / "checkpoints" / "last").resolve() == back

    upload_checkpoint(store, save(run, 12, "others"))  # the same step again, after a retry
    assert not is_stored(store, back)
    assert "others" in (fetch_checkpoint(store, "000012", other) / WEIGHTS).read_text()
    remove_stored(store, "000012")
    remove_stored(store, "000004")
    assert store.files() == {}
    with pytest.raises(StorageError, match=r"000004/manifest\.json is not there"):
        fetch_checkpoint(store, "000004", other)


def test_an_upload_that_is_cut_off_shows_nothing(s3, store, tmp_path):
    upload_checkpoint(store, save(tmp_path / "run", 2))
    s3.fault("training_step", method="PUT", status=403, code="AccessDenied")
    with pytest.raises(StorageError, match="no access to checkpoints/000004"):
        upload_checkpoint(store, save(tmp_path / "run", 4))
    assert any("000004" in path for path in store.files()), "a part of it is there"
    assert stored_steps(store) == {2: "000002"}
    s3.faults.clear()
    sweep_stored(store)
    assert not any("000004" in path for path in store.files())
    upload_checkpoint(store, tmp_path / "run/checkpoints/000004")
    assert list(stored_steps(store)) == [2, 4]
    verify(fetch_checkpoint(store, "000004", tmp_path / "back"))


def test_a_changed_byte_is_noticed_and_the_step_before_is_taken(store, tmp_path, caplog):
    for step in (2, 4):
        upload_checkpoint(store, save(tmp_path / "run", step))
    good = store.read(f"checkpoints/000004/{WEIGHTS}")
    store.put(good.replace(b"4 weights", b"4 weightz", 1), f"checkpoints/000004/{WEIGHTS}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not the file that was saved"):
        fetch_checkpoint(store, "000004", tmp_path / "back")
    assert list((tmp_path / "back" / "checkpoints").iterdir()) == []
    bring_back(store, tmp_path / "back")
    assert [path.name for path in complete_checkpoints(tmp_path / "back")] == ["000002"]
    assert "not the file that was saved" in caplog.text
    store.put(
        json.dumps({"files": {"../../outside": {"bytes": 1, "sha256": ""}}}).encode(),
        "checkpoints/000004/manifest.json",
    )
    with pytest.raises(CheckpointError, match="which is not in its folder"):
        fetch_checkpoint(store, "000004", tmp_path / "back")


def test_what_is_missing_is_brought_back_and_nothing_else(s3, store, tmp_path):
    run, lost = tmp_path / "run", tmp_path / "lost"
    (run / "audit" / "attempt-0001").mkdir(parents=True)
    (run / "audit" / "attempt-0001" / "rank-00000-part-000000.parquet").write_bytes(b"rows")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    for step in (2, 4):
        upload_checkpoint(store, save(run, step))
    upload_small_files(store, run)
    bring_back(store, lost)
    assert [path.name for path in complete_checkpoints(lost)] == ["000004"], "the newest is enough"
    assert (lost / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n', "whole lines"
    assert (lost / "audit" / "attempt-0001" / "rank-00000-part-000000.parquet").read_bytes() == b"rows"

    (lost / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    s3.log.clear()
    bring_back(store, lost)
    assert (lost / "metrics.jsonl").read_text().count("\n") == 3, "longer here"
    assert [path for path in s3.requests(method="GET") if "list-type" not in path] == [], "nothing is read again"
    save(lost, 6)
    bring_back(store, run, newer_than=4)
    assert [path.name for path in complete_checkpoints(run)] == ["000002", "000004"]
    s3.log.clear()
    upload_small_files(store, lost)
    assert [path for path in s3.requests(method="PUT") if "parquet" in path] == [], "what is there is not sent again"


def test_a_url_names_the_newest_step_or_one_of_them(store, tmp_path, caplog):
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="no whole checkpoint below s3://"):
        fetch_by_url(store.url)
    for step in (2, 4):
        upload_checkpoint(store, save(run, step))
    newest = fetch_by_url(store.url)
    assert (
        newest.name
        == fetch_by_url(f"{store.url}/").name
        == fetch_by_url(f"{store.url}/checkpoints/last").name
        == "000004"
    )
    assert fetch_by_url(f"{store.url}/checkpoints/000002/pretrained_model/train_config.json").name == "000002"
    assert fetch_by_url(store.url, step="2").name == "000002"
    with pytest.raises(CheckpointError, match=r"no whole checkpoint 3\. It has 000002, 000004"):
        fetch_by_url(f"{store.url}/checkpoints/3")
    inside = newest / "pretrained_model"
    assert fetched_on_this_node(inside) == inside
    assert fetched_on_this_node(run / "checkpoints" / "000004") is None


def test_another_machine_fetches_what_a_path_of_the_first_one_means(store, tmp_path, monkeypatch):
    upload_checkpoint(store, save(tmp_path / "run", 4))
    there = fetch_by_url(store.url) / "pretrained_model"
    content = (there / "model.safetensors").read_bytes()
    (tmp_path / "cache").rename(tmp_path / "of another machine")
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "own"))
    here = fetched_on_this_node(there)
    assert here != there
    assert (here / "model.safetensors").read_bytes() == content


def test_what_cannot_work_is_said_with_what_to_do(s3, store):
    s3.fault(method="PUT", status=403, code="AccessDenied")
    with pytest.raises(StorageError, match=r"no access to \.probe: .*AWS_ACCESS_KEY_ID"):
        store.probe()
    with pytest.raises(StorageError, match="nosuchbucket"):
        RunStore("s3://nosuchbucket/run", IMPATIENT).probe()
    with pytest.raises(ConfigError, match="carries credentials"):
        RunStore("s3://key:secret@bucket/run")


def test_a_passing_failure_is_tried_again(s3, store):
    fault = s3.fault(method="PUT", status=503, times=1)
    store.put(b"content", "file")
    assert fault.seen > 1
    assert store.read("file") == b"content"


def test_a_full_disk_is_no_failure_of_the_store(store, tmp_path):
    store.put(b"content" * 1000, "file")
    with pytest.raises(StorageError, match=r"/dev/full cannot be written: No space left"):
        store.get("file", type(tmp_path)("/dev/full"))


def test_options_stay_at_the_end_of_an_address():
    assert below("s3://bucket/runs/", "a") == "s3://bucket/runs/a"
    assert below("s3://bucket?scheme=http", "a") == "s3://bucket/a?scheme=http"
