"""A checkpoint on the loopback Hub: whole under its tag, sent once, never over another run's."""

import json

import pytest

from lerobot_ray.hub.client import HubError
from lerobot_ray.hub.push import TAG_ELSEWHERE, push_checkpoint, push_policy
from tests.hub.checkpoints import IN_A_HURRY, content, files_at, save, tags

pytestmark = pytest.mark.hub


@pytest.fixture
def repo(hub):
    hub.api.create_repo("alice/act", private=True)
    hub.book.log.clear()
    return "alice/act"


def push(checkpoint, repo, **more):
    return push_checkpoint(checkpoint, repo, patience=IN_A_HURRY, **more)


def test_a_tagged_step_is_the_folder_as_it_is(hub, repo, tmp_path):
    for step in (5, 10):
        checkpoint = save(tmp_path, step)
        commit = push(checkpoint, repo)
        assert tags(hub)[checkpoint.name] == commit
        there = files_at(hub, checkpoint.name)
        assert content(checkpoint).items() <= there.items()
        assert json.loads(there[f"checkpoints/{checkpoint.name}/manifest.json"]) == json.loads(
            (checkpoint / "manifest.json").read_text()
        )
    assert sorted(tags(hub)) == ["000005", "000010"]


def test_nothing_is_sent_twice(hub, repo, tmp_path):
    checkpoint = save(tmp_path, 5)
    commit = push(checkpoint, repo)
    sent = len(hub.requests("/lfs/object/", "PUT"))
    assert push(checkpoint, repo) == commit
    hub.api.delete_tag(repo, tag="000005")
    push(checkpoint, repo)
    assert len(hub.requests("/lfs/object/", "PUT")) == sent
    assert len(hub.requests("/commit/", "POST")) == 1
    assert tags(hub) == {"000005": commit}


def test_the_model_alone(hub, repo, tmp_path):
    checkpoint = save(tmp_path, 5)
    push(checkpoint, repo, what="model")
    there = [path for path in files_at(hub, "000005") if path.startswith("checkpoints/")]
    assert [path for path in there if "training_state" in path] == []
    manifest = json.loads(files_at(hub, "000005")["checkpoints/000005/manifest.json"])
    assert all(name.startswith("pretrained_model/") for name in manifest["files"])


def test_an_adapter_is_pushed_like_any_other(hub, repo, tmp_path):
    from lerobot_ray.checkpoint.commit import new_checkpoint

    with new_checkpoint(tmp_path, 5, total_steps=1000) as folder:
        (folder / "pretrained_model").mkdir()
        for name in ("config.json", "adapter_config.json"):
            (folder / "pretrained_model" / name).write_text('{"type": "act"}')
        (folder / "pretrained_model" / "adapter_model.safetensors").write_bytes(b"adapter")
    checkpoint = tmp_path / "checkpoints/000005"
    push(checkpoint, repo)
    assert content(checkpoint).items() <= files_at(hub, "000005").items()


@pytest.mark.parametrize(
    "fault",
    [
        {"path": "/lfs/object/", "status": 500, "times": 2},
        {"path": "/commit/main", "status": 429, "retry_after_s": 0.05, "times": 3},
        {"path": "/commit/main", "cut_after": 10, "times": 1},
        {"path": "/tag/", "cut_after": 0, "times": 1},
        {"path": "/preupload/", "status": 503, "times": 2},
    ],
    ids=lambda fault: fault["path"].strip("/"),
)
def test_trouble_that_passes(hub, repo, tmp_path, fault):
    rule = hub.fault(method="PUT" if "lfs" in fault["path"] else "POST", **fault)
    checkpoint = save(tmp_path, 5)
    push(checkpoint, repo)
    assert rule.seen >= fault["times"]
    assert content(checkpoint).items() <= files_at(hub, "000005").items()


def test_no_tag_without_all_of_it(hub, repo, tmp_path):
    checkpoint = save(tmp_path, 5)
    hub.fault("/commit/main", method="POST", status=503)
    with pytest.raises(HubError, match="cannot be used"):
        push(checkpoint, repo)
    assert tags(hub) == {}


def test_a_file_that_changed_after_it_was_saved_is_not_tagged(hub, repo, tmp_path):
    checkpoint = save(tmp_path, 5)
    weights = checkpoint / "pretrained_model/model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    with pytest.raises(HubError, match="changed after it was saved"):
        push(checkpoint, repo)
    assert tags(hub) == {}


def test_the_same_step_of_another_run_stays(hub, repo, tmp_path):
    first = push(save(tmp_path / "one", 5), repo)
    with pytest.raises(HubError, match="names another checkpoint") as refused:
        push(save(tmp_path / "other", 5, seed="x"), repo)
    assert refused.value.code == TAG_ELSEWHERE
    assert tags(hub) == {"000005": first}


def test_main_moving_meanwhile_and_leftovers_of_others(hub, repo, tmp_path):
    hub.api.upload_file(path_or_fileobj=b"old", path_in_repo="checkpoints/000005/stale.bin", repo_id=repo)
    hub.fault("/commit/main", method="POST", status=412, times=2)
    checkpoint = save(tmp_path, 5)
    push(checkpoint, repo)
    there = files_at(hub, "000005")
    assert "checkpoints/000005/stale.bin" not in there
    assert content(checkpoint).items() <= there.items()


def test_the_audit_goes_along(hub, repo, tmp_path):
    part = tmp_path / "audit/attempt-0001/rank-00000-part-000000.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rows")
    (part.parent / ".rank-00000-part-000001.parquet.tmp").write_bytes(b"torn")
    push(save(tmp_path, 5), repo, run_dir=tmp_path)
    there = files_at(hub, "000005")
    assert there["audit/attempt-0001/rank-00000-part-000000.parquet"] == b"rows"
    assert not [path for path in there if path.endswith(".tmp")]


def test_a_policy_at_the_root_replaces_the_one_before(hub, repo, tmp_path):
    hub.api.upload_file(path_or_fileobj=b"x", path_in_repo="adapter_model.safetensors", repo_id=repo)
    hub.api.upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id=repo)
    push(save(tmp_path, 5), repo)
    policy = tmp_path / "checkpoints/000005/pretrained_model"
    card = b"---\nlicense: mit\n---\n# act\n"
    push_policy(policy, repo, beside={"README.md": card}, patience=IN_A_HURRY)
    there = files_at(hub, "main")
    assert there["model.safetensors"] == (policy / "model.safetensors").read_bytes()
    assert there["README.md"] == card
    assert "adapter_model.safetensors" not in there
    assert {"notes.txt", "checkpoints/000005/pretrained_model/config.json"} <= there.keys()
    commits = len(hub.requests("/commit/", "POST"))
    push_policy(policy, repo, beside={"README.md": card}, patience=IN_A_HURRY)
    assert len(hub.requests("/commit/", "POST")) == commits
