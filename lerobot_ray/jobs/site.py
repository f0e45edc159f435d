"""What the client knows about the machines a job will run on: above all, which of its own paths they see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Site:
    """The machines of a job."""

    name: str
    """In a sentence: the cluster at http://…"""
    is_here: bool = False
    """Every one of them is this very machine, so that its paths are theirs."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Folders of this machine that they see -> where they see them."""
    home: str | None = None
    """Where results go when nobody says; None: wherever the run puts them."""

    def path_there(self, path: Path | str) -> str | None:
        """What a path of this machine is called there; None when they do not see it."""
        here = Path(path).expanduser().absolute()
        if self.is_here:
            return str(here)
        for mine in sorted(self.mounts, key=len, reverse=True):
            folder = Path(mine).expanduser()
            if here == folder or folder in here.parents:
                return str(PurePosixPath(self.mounts[mine], *here.relative_to(folder).parts))
        return None


def is_url(place: str | None) -> bool:
    """Whether it names an object store rather than a folder."""
    return place is not None and "://" in place
