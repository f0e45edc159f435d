"""A dataset folder pushed to the loopback Hub is read back whole, and never seen half."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.data import Dataset
from lerobot_ray.dataset import main
from lerobot_ray.hub.dataset import push_dataset

pytestmark = pytest.mark.hub


def tagged(hub, repo_id="alice/toy"):
    refs = hub.api.list_repo_refs(repo_id, repo_type="dataset")
    return {tag.name: tag.target_commit for tag in refs.tags}


def files(hub, revision="v3.0", repo_id="alice/toy"):
    return set(hub.api.list_repo_files(repo_id, repo_type="dataset", revision=revision)) - {".gitattributes"}


def test_what_is_pushed_is_read_back(hub, toy_root, capsys):
    assert main(["push", str(toy_root), "alice/toy"]) == 0
    assert f"Dataset pushed to {hub.endpoint}/datasets/alice/toy" in capsys.readouterr().out
    assert hub.api.repo_info("alice/toy", repo_type="dataset").private
    here, there = Dataset("tests/toy", root=toy_root), Dataset("alice/toy")
    assert len(here) == len(there)
    one, other = here[17], there[17]
    assert one.keys() == other.keys()
    assert all(np.array_equal(np.asarray(one[key]), np.asarray(other[key])) for key in one if key != "task")
    own = {path.relative_to(toy_root).as_posix() for path in toy_root.rglob("*") if path.is_file()}
    assert files(hub) == own | {"README.md"}
    card = Path(hub.api.hf_hub_download("alice/toy", "README.md", repo_type="dataset", revision="v3.0"))
    assert "license: apache-2.0" in card.read_text()


def test_a_second_push_sends_what_changed_and_takes_away_what_is_gone(hub, toy_root, tmp_path):
    push_dataset(toy_root, "alice/toy")
    before, sent = tagged(hub), len(hub.requests("/lfs/object/", "PUT"))
    push_dataset(toy_root, "alice/toy")
    assert tagged(hub) == before
    assert len(hub.requests("/lfs/object/", "PUT")) == sent
    hub.api.upload_file(
        path_or_fileobj=b"old", path_in_repo="data/chunk-000/file-009.parquet", repo_id="alice/toy", repo_type="dataset"
    )
    hub.api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="alice/toy", repo_type="dataset")
    push_dataset(toy_root, "alice/toy")
    assert "data/chunk-000/file-009.parquet" not in files(hub)
    assert "notes.txt" in files(hub)


def test_a_push_that_is_cut_leaves_the_tag_where_it_was_and_goes_on(hub, toy_root, tmp_path, monkeypatch):
    push_dataset(toy_root, "alice/toy")
    before = tagged(hub)
    changed = shutil.copytree(toy_root, tmp_path / "changed")
    (changed / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    monkeypatch.setattr("lerobot_ray.hub.dataset.FILES_PER_COMMIT", 1)
    (changed / "notes.txt").write_text("more")
    fault = hub.fault("/commit/main", method="POST", first=2, status=400, message="not today")
    with pytest.raises(OSError, match="not today"):
        push_dataset(changed, "alice/toy")
    assert tagged(hub) == before
    assert "notes.txt" not in files(hub)
    fault.status = 0
    push_dataset(changed, "alice/toy")
    assert tagged(hub) != before
    assert "notes.txt" in files(hub)


def test_what_cannot_be_pushed(hub, toy_root, tmp_path, monkeypatch, capsys):
    with pytest.raises(DatasetError, match="no folder"):
        push_dataset(tmp_path / "nowhere", "alice/toy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="not a LeRobot dataset"):
        push_dataset(tmp_path / "empty", "alice/toy")
    broken = shutil.copytree(toy_root, tmp_path / "broken")
    next((broken / "videos").rglob("*.mp4")).unlink()
    with pytest.raises(DatasetError, match=r"file-000\.mp4"):
        push_dataset(broken, "alice/toy")
    with pytest.raises(ConfigError, match="not the name of a Hub repository"):
        push_dataset(toy_root, "toy")
    with pytest.raises(ConfigError, match="no right to write"):
        push_dataset(toy_root, "bob/toy")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["push", str(toy_root), "alice/toy"]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(toy_root), "alice/toy"]) == 2
    assert "Set HF_TOKEN" in capsys.readouterr().err
    assert not hub.store.repos
