"""What a run names and this machine does not have: a repository of the Hub, or a URL of an object store."""

from __future__ import annotations

from pathlib import Path

from lerobot_ray.checkpoint.stored import fetch_by_url, fetched_on_this_node
from lerobot_ray.core.layout import PRETRAINED_DIR
from lerobot_ray.data.audit import AUDIT_DIR
from lerobot_ray.hub import fetch as hub
from lerobot_ray.hub.place import Wanted


def fetch(name: str, *, revision: str | None = None, what: Wanted = "policy") -> Path:
    """The folder with what is wanted of it, on this machine. Of an object store a whole checkpoint comes."""
    if "://" in name:
        checkpoint = fetch_by_url(name, step=revision)
        return checkpoint / PRETRAINED_DIR if what == "policy" else checkpoint
    return hub.fetch(name, revision=revision, what=what)


def on_this_node(path: Path) -> Path:
    """The same folder on this machine: what another machine has fetched is fetched here too, others are as they are."""
    return fetched_on_this_node(path) or hub.on_this_node(path)


def is_fetched(path: Path) -> bool:
    """Whether a folder is in a cache of what came from elsewhere."""
    return fetched_on_this_node(path) is not None or hub.is_from_hub(path)


def audit_beside(checkpoint: Path) -> Path | None:
    """The audit that came from elsewhere with a fetched checkpoint."""
    if fetched_on_this_node(checkpoint) is None:
        return hub.fetch_beside(checkpoint, AUDIT_DIR)
    audit = checkpoint.parents[1] / AUDIT_DIR
    return audit if audit.is_dir() else None
