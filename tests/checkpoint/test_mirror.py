"""Checkpoints go to a store beside training: in order, by the rules, and never in the way."""

import threading

import pytest

from lerobot_ray.checkpoint.commit import verify
from lerobot_ray.checkpoint.mirror import Mirror
from lerobot_ray.checkpoint.retention import Retention
from lerobot_ray.checkpoint.stored import fetch_checkpoint, stored_steps
from tests.checkpoint.stores import IMPATIENT, save, store_in
from tests.on_ray.runs import wait_until
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def server():
    with S3Server() as server:
        server.put("bucket", {"elsewhere": b""})
        yield server


@pytest.fixture
def s3(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.faults.clear()


@pytest.fixture
def store(s3, tmp_path):
    return store_in(s3, tmp_path)


def mirror(store, run, *, keep_last=None, **more):
    return Mirror(store, run, retention=Retention(keep_last=keep_last), retry=IMPATIENT, **more)


def test_what_is_committed_is_copied_and_the_rules_hold_there_too(store, tmp_path):
    run = tmp_path / "run"
    work = mirror(store, run, keep_last=2)
    (run / "audit" / "attempt-0001").mkdir(parents=True)
    for step in (2, 4, 6):
        (run / "metrics.jsonl").write_text("{}\n" * step)
        (run / "audit" / "attempt-0001" / f"rank-00000-part-{step:06d}.parquet").write_text(str(step))
        work.submit(save(run, step))
        wait_until(lambda step=step: step in stored_steps(store))
    work.finish()
    assert work.summary() == ""
    assert list(stored_steps(store)) == [4, 6]
    assert not any("000002" in path for path in store.files("checkpoints"))
    assert store.read("metrics.jsonl") == b"{}\n" * 6
    assert len(store.files("audit")) == 3


def test_an_upload_that_fails_is_said_and_the_next_one_goes(s3, store, tmp_path, caplog):
    run = tmp_path / "run"
    fault = s3.fault("checkpoints/000002", method="PUT", status=503)
    work = mirror(store, run)
    work.submit(save(run, 2))
    wait_until(lambda: work.missing)
    assert fault.seen > 1, "it was tried again"
    work.submit(save(run, 4))
    work.finish()
    assert list(stored_steps(store)) == [4]
    assert "the checkpoint of step 2 is not in s3://bucket/" in caplog.text
    assert "the checkpoints 000002 of" in work.summary()
    assert "--resume=auto" in work.summary()
    s3.faults.clear()
    again = mirror(store, run)  # as the next start does
    again.submit(run / "checkpoints" / "000002")
    again.submit(run / "checkpoints" / "000004")
    again.finish()
    assert (list(stored_steps(store)), again.summary()) == ([2, 4], "")


def test_a_slow_store_gets_the_newest_and_what_it_reads_is_not_removed(s3, store, tmp_path, caplog):
    run = tmp_path / "run"
    s3.fault("model.safetensors", method="PUT", delay_s=0.5)
    work = mirror(store, run, max_waiting=2)
    checkpoints = [save(run, step) for step in (2, 4, 6, 8, 10)]
    work.submit(checkpoints[0])
    wait_until(lambda: s3.requests("model.safetensors", "PUT"))
    for checkpoint in checkpoints[1:]:
        work.submit(checkpoint)
    assert [work.is_needed(checkpoint) for checkpoint in checkpoints] == [True, False, False, True, True]
    work.finish()
    assert list(stored_steps(store)) == [2, 8, 10]
    assert "is slower than saving: the checkpoint of step 4 is left out" in caplog.text
    verify(fetch_checkpoint(store, "000010", tmp_path / "back"))


def test_what_a_cut_upload_left_is_removed_by_the_next_start(s3, store, tmp_path):
    run = tmp_path / "run"
    store.put(b"half", "checkpoints/000002/pretrained_model/model.safetensors")
    work = mirror(store, run)
    work.submit(save(run, 4))
    work.finish()
    assert not any("000002" in path for path in store.files())
    assert list(stored_steps(store)) == [4]


def test_abandoned_in_the_middle(s3, store, tmp_path):
    from lerobot_ray.data.retry import PATIENT

    run, stopped = tmp_path / "run", threading.Event()
    s3.fault("checkpoints/000002", method="PUT", status=503)
    work = Mirror(store, run, retention=Retention(), retry=PATIENT)
    work.submit(save(run, 2))
    wait_until(lambda: s3.requests("checkpoints/000002", "PUT"))
    threading.Thread(target=lambda: (work.abandon(), stopped.set())).start()
    assert stopped.wait(timeout=10)
    assert stored_steps(store) == {}
