from __future__ import annotations

import shutil

import pytest

from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.jobs.datasets import make_available, plan_dataset
from lerobot_ray.jobs.site import Site
from tests.s3_server import S3Server

FAR = Site(name="the cluster at http://far:8265")
HERE = Site(name="the cluster at http://127.0.0.1:8265", is_here=True)


def test_used_in_place_on_this_machine(toy_root):
    plan = plan_dataset(DatasetConfig(repo_id="tests/toy", root=str(toy_root)), HERE, storage=None)
    assert plan.config.root == str(toy_root)
    assert plan.push is None
    assert plan.copy is None


def test_a_local_copy_without_a_root_is_named_by_its_place(toy_root, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    shutil.copytree(toy_root, tmp_path / "tests" / "toy")
    plan = plan_dataset(DatasetConfig(repo_id="tests/toy"), HERE, storage=None)
    assert plan.config.root == str(tmp_path / "tests" / "toy")


def test_a_mounted_folder_is_named_as_the_cluster_does(toy_root):
    site = Site(name="far", mounts={str(toy_root.parent): "/mnt"})
    plan = plan_dataset(DatasetConfig(repo_id="tests/toy", root=str(toy_root)), site, storage=None)
    assert plan.config.root == f"/mnt/{toy_root.name}"


def test_only_here_is_copied_to_the_storage_that_both_see(toy_root, tmp_path):
    site = Site(name="far", mounts={str(tmp_path): "/shared"})
    config = DatasetConfig(repo_id="tests/toy", root=str(toy_root))
    plan = plan_dataset(config, site, storage=None, shared=str(tmp_path))
    assert plan.config.root == "/shared/datasets/tests/toy"
    make_available(plan)
    assert open_metadata("tests/toy", root=tmp_path / "datasets" / "tests" / "toy").total_episodes


@pytest.mark.hub
def test_only_here_and_logged_in_is_pushed_privately_with_its_version(toy_root, hub):
    plan = plan_dataset(DatasetConfig(repo_id="alice/toy", root=str(toy_root)), FAR, storage=None)
    assert not hub.requests(method="POST"), "planning changes nothing"
    make_available(plan)
    assert plan.config.root is None
    assert hub.store.repos["dataset", "alice/toy"].private
    pushed = open_metadata("alice/toy", revision="v3.0")
    assert pushed.total_frames == open_metadata("x", root=toy_root).total_frames


@pytest.mark.hub
def test_what_the_hub_has_is_not_pushed_over(toy_root, hub):
    make_available(plan_dataset(DatasetConfig(repo_id="alice/toy", root=str(toy_root)), FAR, storage=None))
    with pytest.raises(DatasetError, match=r"another --dataset\.repo_id"):
        plan_dataset(DatasetConfig(repo_id="alice/toy", root=str(toy_root)), FAR, storage=None)
    assert plan_dataset(DatasetConfig(repo_id="alice/toy"), FAR, storage=None).on_hub


@pytest.mark.hub
def test_neither_here_nor_on_the_hub(hub):
    with pytest.raises(DatasetError, match="there is no dataset alice/nowhere"):
        plan_dataset(DatasetConfig(repo_id="alice/nowhere"), FAR, storage=None)


def test_only_here_and_no_way_to_bring_it(toy_root, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DatasetError, match=r"only on this machine.*hf auth login.*upload_to.*job\.mounts"):
        plan_dataset(DatasetConfig(repo_id="tests/toy", root=str(toy_root)), FAR, storage=None)


def test_a_folder_that_is_not_here_is_the_clusters(tmp_path):
    config = DatasetConfig(repo_id="tests/toy", root=str(tmp_path / "none"))
    assert "taken for a folder of the cluster" in plan_dataset(config, FAR, storage=None).says
    with pytest.raises(DatasetError, match="there is no folder"):
        plan_dataset(config, HERE, storage=None)


def test_a_damaged_local_dataset_is_refused_before_it_is_sent(toy_root, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(toy_root, broken)
    next(broken.glob("videos/**/*.mp4")).unlink()
    with pytest.raises(DatasetError, match="missing"):
        plan_dataset(DatasetConfig(repo_id="a/b", root=str(broken)), FAR, storage="s3://bucket")


def test_only_here_is_copied_to_the_object_store_that_the_run_names(toy_root, tmp_path, monkeypatch):
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    with S3Server() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.put("lab", {"runs/placeholder": b""})
        config = DatasetConfig(repo_id="tests/toy", root=str(toy_root))
        plan = plan_dataset(config, FAR, storage="s3://lab/runs")
        assert plan.config.root == "s3://lab/runs/datasets/tests/toy"
        make_available(plan)
        copied = open_metadata("tests/toy", root=plan.config.root)
        assert copied.total_frames == open_metadata("tests/toy", root=toy_root).total_frames
