"""A loopback Hub per test, with this process's environment pointing at it, and a user who may write."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi

from tests.hub_server import HubServer


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`hub.api` is alice's, whose token this process has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf-hub"))
    monkeypatch.setenv("LEROBOT_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer(tmp_path / "hub") as server:
        server.api = HfApi(endpoint=server.endpoint, token=server.add_user("alice"))
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.api.token)
        yield server
