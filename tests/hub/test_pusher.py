"""The pushing thread: in order, bounded, over restarts, and never in the way."""

import threading
import time

import pytest

from lerobot_ray.hub.pusher import CheckpointPusher
from tests.hub.checkpoints import QUICK, content, files_at, save, tags
from tests.on_ray.runs import wait_until

pytestmark = pytest.mark.hub


@pytest.fixture
def repo(hub):
    hub.api.create_repo("alice/act")
    return "alice/act"


def pusher(run_dir, **more):
    return CheckpointPusher(run_dir, "alice/act", retry=QUICK, **more)


def tagged_in_order(hub):
    return [request.path.rpartition("/")[2] for request in hub.requests("/tag/", "POST") if request.status == 201]


def test_in_order_and_everything_at_the_end(hub, repo, tmp_path):
    hub.fault("/commit/main", method="POST", delay_s=0.1)
    work = pusher(tmp_path)
    checkpoints = [save(tmp_path, step) for step in (5, 10, 15)]
    started = time.monotonic()
    for checkpoint in checkpoints:
        work.submit(checkpoint)
    assert time.monotonic() - started < 0.1, "submit waits for nothing"
    assert all(work.is_needed(checkpoint) for checkpoint in checkpoints[1:])
    work.finish()
    assert work.summary() == ""
    assert not any(work.is_needed(checkpoint) for checkpoint in checkpoints)
    commits = hub.store.repos["model", repo].history("main")[::-1]
    assert [tags(hub)[checkpoint.name] for checkpoint in checkpoints] == [commit.id for commit in commits[1:]]


def test_what_waits_is_bounded_and_the_newest_wins(hub, repo, tmp_path, caplog):
    go = threading.Event()
    hub.fault("/refs", first=1, times=1, delay_s=0.5)
    work = pusher(tmp_path, max_waiting=2)
    checkpoints = [save(tmp_path, step) for step in (5, 10, 15, 20)]
    work.submit(checkpoints[0])
    wait_until(lambda: hub.requests("/refs"))
    for checkpoint in checkpoints[1:]:
        work.submit(checkpoint)
    work.finish()
    go.set()
    assert sorted(tags(hub)) == ["000005", "000015", "000020"]
    assert "left out" in caplog.text
    assert "000010" in work.summary()
    assert "python -m lerobot_ray.push" in work.summary()


def test_a_failed_upload_is_a_warning_and_the_next_goes_on(hub, repo, tmp_path, caplog):
    fault = hub.fault("/commit/main", method="POST", status=403, times=1)
    work = pusher(tmp_path)
    for step in (5, 10):
        work.submit(save(tmp_path, step))
    work.finish()
    assert fault.seen == 2
    assert sorted(tags(hub)) == ["000010"]
    assert "step 5 is not on the Hub" in caplog.text
    assert "000005" in work.summary()
    assert "000010" not in work.summary()


def test_a_storm_of_429_is_sat_out(hub, repo, tmp_path):
    from lerobot_ray.data.retry import RetryPolicy

    storm = hub.fault("/api/models/|/lfs/|info/lfs", status=429, retry_after_s=0.05, times=25)
    work = CheckpointPusher(
        tmp_path, repo, retry=RetryPolicy(attempts=40, first_wait_s=0.01, longest_backoff_s=0.05, longest_wait_s=0.1)
    )
    checkpoint = save(tmp_path, 5)
    work.submit(checkpoint)
    work.finish()
    assert storm.seen > 25
    assert work.summary() == ""
    assert content(checkpoint).items() <= files_at(hub, "000005").items()


def test_a_restart_sends_nothing_again(hub, repo, tmp_path):
    first = pusher(tmp_path)
    checkpoint = save(tmp_path, 5)
    first.submit(checkpoint)
    first.finish()
    asked = len(hub.requests())
    second = pusher(tmp_path)
    second.submit(checkpoint)
    second.finish()
    assert len(hub.requests()) == asked
    (tmp_path / "hub.json").unlink()  # killed between the tag and the note of it
    third = pusher(tmp_path)
    third.submit(checkpoint)
    third.submit(save(tmp_path, 10))
    third.finish()
    assert third.summary() == ""
    assert sorted(tags(hub)) == ["000005", "000010"]
    puts = hub.requests("/lfs/object/", "PUT")
    assert len(puts) == len({request.path for request in puts})


def test_two_runs_in_one_repository(hub, repo, tmp_path, caplog):
    mine, theirs = pusher(tmp_path / "mine"), pusher(tmp_path / "theirs")
    mine.submit(save(tmp_path / "mine", 5))
    wait_until(lambda: tags(hub))
    theirs.submit(save(tmp_path / "theirs", 7, seed="x"))
    theirs.submit(save(tmp_path / "theirs", 9, seed="x"))
    theirs.finish()
    mine.submit(save(tmp_path / "mine", 10))
    mine.finish()
    assert sorted(tags(hub)) == ["000005", "000010"]
    assert mine.summary() == ""
    assert "000007, 000009" in theirs.summary()
    assert "another run pushes to alice/act" in caplog.text


def test_abandoned_in_the_middle(hub, repo, tmp_path):
    hub.fault("/commit/main", method="POST", status=503)
    work = CheckpointPusher(tmp_path, repo)  # with its usual patience
    work.submit(save(tmp_path, 5))
    wait_until(lambda: hub.requests("/commit/main"))
    started = time.monotonic()
    work.abandon()
    assert time.monotonic() - started < 5
    assert tags(hub) == {}
