"""From the loopback Hub to this disk: which step, whole and as listed, once, and what is said when it cannot be."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from huggingface_hub import CommitOperationAdd

from lerobot_ray.checkpoint.commit import verify
from lerobot_ray.hub.client import HubError
from lerobot_ray.hub.fetch import fetch, fetch_beside, newest_step, on_this_node
from lerobot_ray.hub.push import push_checkpoint, push_policy
from tests.hub.checkpoints import IN_A_HURRY, QUICK, save, tags
from tests.on_ray.runs import wait_until

pytestmark = pytest.mark.hub


@pytest.fixture
def run(hub, tmp_path):
    """A run with steps 5 and 10 on the Hub, tagged; no model at the root."""
    hub.api.create_repo("alice/act")
    (tmp_path / "run/audit/attempt-0001").mkdir(parents=True)
    (tmp_path / "run/audit/attempt-0001/part.parquet").write_bytes(b"rows")
    for step in (5, 10):
        push_checkpoint(save(tmp_path / "run", step), "alice/act", run_dir=tmp_path / "run", patience=IN_A_HURRY)
    hub.book.log.clear()
    return tmp_path / "run"


def get(repo_id="alice/act", **how):
    return fetch(repo_id, retry=QUICK, **how)


def gets(hub, path=""):
    return [request for request in hub.requests(f"/resolve/.*{path}", "GET") if request.status == 200]


def same(one, other):
    def files(folder):
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    return files(one) == files(other)


@pytest.mark.parametrize(("revision", "name"), [(None, "000010"), ("5", "000005"), ("000005", "000005")])
def test_a_checkpoint_comes_back_whole(hub, run, revision, name):
    there = get(revision=revision, what="checkpoint")
    assert there.name == name
    verify(there)
    assert same(there, run / "checkpoints" / name)
    assert (fetch_beside(there, "audit", retry=QUICK) / "attempt-0001/part.parquet").read_bytes() == b"rows"


def test_each_file_is_fetched_once_by_all_processes_of_a_node(hub, run):
    threads = [threading.Thread(target=lambda: get(what="checkpoint")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = get(what="checkpoint")
    on_this_node(there, retry=QUICK)
    paths = [request.path for request in gets(hub)]
    assert len(paths) == len(set(paths))
    assert len(paths) == len({path.read_bytes() for path in there.rglob("*") if path.is_file()}), "by content"


def test_another_node_fetches_its_own_copy(hub, run, tmp_path, monkeypatch):
    there = get(what="checkpoint")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "other-node"))
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "other-cache"))
    shutil.rmtree(tmp_path / "hf-hub")
    here = on_this_node(there, retry=QUICK)
    assert here.is_relative_to(tmp_path / "other-node")
    assert same(here, run / "checkpoints/000010")
    assert on_this_node(run / "checkpoints/000005") == run / "checkpoints/000005"


def test_a_policy_is_the_root_or_the_newest_step(hub, run):
    assert same(get(), run / "checkpoints/000010/pretrained_model")
    assert same(get(revision="5"), run / "checkpoints/000005/pretrained_model")
    push_policy(run / "checkpoints/000005/pretrained_model", "alice/act", beside={}, patience=IN_A_HURRY)
    root = get()
    assert (root / "model.safetensors").read_bytes() == (
        run / "checkpoints/000005/pretrained_model/model.safetensors"
    ).read_bytes()
    assert not (root / "checkpoints").exists() or root.name != "pretrained_model"
    assert same(get(revision="000010"), run / "checkpoints/000010/pretrained_model")
    assert (get(what="config") / "train_config.json").is_file()
    at_commit = get(revision=tags(hub)["000005"])
    assert same(at_commit, run / "checkpoints/000005/pretrained_model")


def test_offline_uses_what_is_here(hub, run, monkeypatch):
    for what in ("checkpoint", "policy"):
        get(what=what)
    hub.book.log.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert same(get(what="checkpoint"), run / "checkpoints/000010")
    assert same(get(), run / "checkpoints/000010/pretrained_model")
    assert not hub.requests()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        get("alice/other")


def test_what_is_not_there(hub, run, monkeypatch):
    with pytest.raises(HubError, match=r"no step 7\. It has the steps 000005, 000010"):
        get(revision="7", what="checkpoint")
    with pytest.raises(HubError, match=r"no revision nowhere\. It has the steps 000005, 000010"):
        get(revision="nowhere", what="checkpoint")
    with pytest.raises(HubError, match=r"no revision nowhere\. It has the steps 000005, 000010"):
        get(revision="nowhere")
    with pytest.raises(HubError, match="no such repository"):
        get("alice/none")
    hub.api.create_repo("alice/empty")
    with pytest.raises(HubError, match=r"no checkpoint to resume.*no tagged step"):
        get("alice/empty", what="checkpoint")
    assert newest_step("alice/none") is None
    assert newest_step("alice/act") == "000010"


def test_a_tag_that_points_elsewhere(hub, run, caplog):
    first = hub.store.repos["model", "alice/act"].history("main")[-1].id
    hub.api.create_tag("alice/act", tag="000020", revision=first)
    with pytest.raises(HubError, match=r"tag 000020 .* holds no checkpoints/000020\. It has the steps"):
        get(revision="20", what="checkpoint")
    assert get(what="checkpoint").name == "000010"
    assert "Looking at the step before" in caplog.text


def test_the_model_alone_cannot_be_resumed(hub, run):
    push_checkpoint(save(run, 15), "alice/act", what="model", patience=IN_A_HURRY)
    with pytest.raises(HubError, match=r"holds the model only.*--policy.pretrained_revision=000015"):
        get(what="checkpoint")
    assert same(get(), run / "checkpoints/000015/pretrained_model")


def test_a_file_cut_short_on_the_hub(hub, run):
    path = "checkpoints/000010/training_state/optimizer_state.safetensors"
    commit = hub.api.create_commit("alice/act", [CommitOperationAdd(path, b"short")], commit_message="x").oid
    hub.api.delete_tag("alice/act", tag="000010")
    hub.api.create_tag("alice/act", tag="000010", revision=commit)
    with pytest.raises(HubError, match=r"optimizer_state\.safetensors .* is not the file that was saved"):
        get(what="checkpoint")
    assert not gets(hub, "model.safetensors"), "nothing large was fetched for it"


def test_bytes_changed_on_the_way(hub, run):
    fault = hub.fault("/resolve/.*/model.safetensors", method="GET", corrupt=True, times=1)
    assert same(get(what="checkpoint"), run / "checkpoints/000010")
    assert fault.seen == 2
    hub.fault("/resolve/.*000005.*/model.safetensors", method="GET", corrupt=True)
    with pytest.raises(HubError, match="its digest is another one"):
        get(revision="5", what="checkpoint")


def test_a_cut_connection_is_gone_on_from(hub, run):
    hub.fault("/resolve/.*/model.safetensors", method="GET", cut_after=1000, times=2)
    assert same(get(what="checkpoint"), run / "checkpoints/000010")


def test_a_disk_that_is_too_small_is_refused_before(hub, run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(HubError, match=r"takes 0 MB more, and .* has 0 MB free"):
        get(what="checkpoint")
    assert not gets(hub)


def test_a_disk_that_fills_up_meanwhile(hub, run):
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from lerobot_ray.hub.fetch import fetch
import huggingface_hub
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    fetch("alice/act", what="checkpoint")
except OSError as error:
    print(error)
"""
    save_here = run.parent / "home"
    environment = {"HF_HOME": str(save_here)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert "cannot be stored" in done.stdout, done.stderr
    assert "HF_HOME" in done.stdout
    assert same(get(what="checkpoint"), run / "checkpoints/000010")


def test_a_kill_in_the_middle_of_an_upload_leaves_the_newest_tagged_step_whole(hub, run, tmp_path):
    hub.fault("/lfs/object/", method="PUT", delay_s=30)
    code = f"""
from pathlib import Path
from lerobot_ray.hub.push import push_checkpoint
push_checkpoint(Path({str(save(run, 15, weights_bytes=400_000))!r}), "alice/act")
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: hub.requests("/lfs/object/", "PUT"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert sorted(tags(hub)) == ["000005", "000010"]
    there = get(what="checkpoint")
    assert there.name == "000010"
    verify(there)
    hub.book.rules.clear()
    push_checkpoint(run / "checkpoints/000015", "alice/act", patience=IN_A_HURRY)
    assert get(what="checkpoint").name == "000015"
    assert json.loads((get(what="checkpoint") / "training_state/training_step.json").read_text()) == {"step": 15}
