from __future__ import annotations

from lerobot_ray.jobs.site import Site, is_url


def test_a_cluster_elsewhere_sees_nothing_of_this_machine(tmp_path):
    assert Site(name="x").path_there(tmp_path) is None


def test_this_very_machine_sees_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Site(name="x", is_here=True).path_there("a/b") == str(tmp_path / "a/b")


def test_the_longest_mount_wins():
    site = Site(name="x", mounts={"/data": "/mnt/data", "/data/own": "/own"})
    assert site.path_there("/data/pick") == "/mnt/data/pick"
    assert site.path_there("/data/own/pick") == "/own/pick"
    assert site.path_there("/data") == "/mnt/data"
    assert site.path_there("/database") is None


def test_urls():
    assert is_url("s3://bucket/x")
    assert not is_url("/mnt/x")
    assert not is_url(None)
