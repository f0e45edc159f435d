"""Which storage a dataset's name and root lead to, and what a folder promises as one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lerobot_ray.core.errors import DatasetError, StorageError
from lerobot_ray.data.storage import LocalStorage, Storage, cache_home, lerobot_home, open_storage


def make(folder: Path) -> Path:
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text("{}")
    return folder


def test_folder_as_storage(tmp_path):
    storage = LocalStorage(make(tmp_path / "set"))
    assert isinstance(storage, Storage)
    assert storage.local("meta/info.json").read_text() == "{}"
    assert storage.exists("meta/info.json")
    assert not storage.exists("meta")
    assert storage.glob("*/*.json") == ["meta/info.json"]
    storage.prefetch(["meta/info.json", "nowhere"])
    assert storage.identity() == str(tmp_path / "set")
    assert pickle.loads(pickle.dumps(storage)) == storage
    with pytest.raises(StorageError, match=r"stats\.json is missing"):
        storage.local("meta/stats.json")


def test_root_wins_over_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    make(tmp_path / "home/me/set")
    other = make(tmp_path / "other")
    assert open_storage("me/set", root=other, revision="v9").identity() == str(other)
    assert open_storage("", root=str(other)).identity() == str(other)


def test_recorded_copy_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    recorded = make(tmp_path / "home/me/set")
    assert open_storage("me/set").identity() == str(recorded)


def test_missing_root_says_where_else_to_look(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        open_storage("me/set", root=tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"dataset\.repo_id"):
        open_storage("")


def test_homes_follow_the_environment(tmp_path, monkeypatch):
    for name in ("HF_LEROBOT_HOME", "HF_HOME", "XDG_CACHE_HOME", "LEROBOT_RAY_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert lerobot_home() == Path.home() / ".cache/huggingface/lerobot"
    assert cache_home() == Path.home() / ".cache/lerobot_ray"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    assert lerobot_home() == tmp_path / "hf/lerobot"
    assert cache_home() == tmp_path / "cache"
