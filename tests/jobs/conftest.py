"""One head for every test of this folder that only needs a job server, and a Hub."""

from __future__ import annotations

import pytest

from tests.hub_server import HubServer


@pytest.fixture(scope="session")
def head():
    pytest.importorskip("aiohttp")
    from tests.jobs.heads import running_head

    with running_head() as running:
        yield running


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
