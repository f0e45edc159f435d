"""One head for every test of this folder that only needs a job server, and a Hub."""

from __future__ import annotations

import pytest

from tests.hub_server import HubServer
from tests.on_ray.runs import TINY_ACT


@pytest.fixture(scope="session")
def head():
    pytest.importorskip("aiohttp")
    from tests.jobs.heads import running_head

    with running_head() as running:
        yield running


@pytest.fixture
def flags(toy_root, tmp_path):
    """A tiny run."""
    return [
        *("--dataset.repo_id=tests/toy", f"--dataset.root={toy_root}", f"--output_dir={tmp_path / 'out'}"),
        *(*TINY_ACT, "--batch_size=4", "--log_freq=1", "--mlflow.enable=false"),
    ]


@pytest.fixture(autouse=True)
def _uploads_without_xet(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture
def hub(monkeypatch):
    """A Hub that this process is logged in to as alice."""
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.add_user("alice"))
        yield server
