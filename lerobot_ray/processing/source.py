"""Where a saved pipeline's files come from: a folder, a single JSON file, or a Hub repository at a revision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.layout import CONFIG_NAME

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class Source:
    """The files of one policy folder, wherever it is."""

    place: str
    """A folder, or a repository's name."""
    revision: str | None = None
    """Branch, tag or commit of a repository."""

    def file(self, name: str) -> Path | None:
        """A local path of the file, fetched if need be; None when the folder or repository does not have it."""
        folder = Path(self.place)
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        return _fetch(self.place, name, self.revision)

    def require(self, name: str) -> Path:
        """Like `file`; ProcessorError when there is none, saying what kind of folder this looks like."""
        path = self.file(name)
        if path is not None:
            return path
        where = f"{self.place} at {self.revision}" if self.revision else self.place
        if name.endswith(".json") and self.file(CONFIG_NAME) is not None:
            raise ProcessorError(
                f"{where} has a {CONFIG_NAME} but no {name}: it was saved without processors, or before LeRobot kept "
                "normalisation in files of its own. Convert it with LeRobot's migrate_policy_normalization script."
            )
        raise ProcessorError(f"{where} has no {name}. A policy folder holds its config, weights and both processors.")


def open_source(pretrained: str | Path, name: str, revision: str | None = None) -> tuple[Source, str]:
    """The source and the file in it: `pretrained` is a folder, a repository, or the JSON file itself."""
    path = Path(pretrained)
    if path.suffix == ".json" and path.is_file():
        return Source(str(path.parent)), path.name
    looks_like_repository = str(pretrained).count("/") <= 1 and not str(pretrained).startswith((".", "/", "~"))
    if not path.is_dir() and not looks_like_repository:
        raise ProcessorError(f"{pretrained} is neither a folder nor the name of a Hub repository (user/name).")
    return Source(str(pretrained), revision), f"{name}.json"


def _fetch(repo_id: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    # Read now, not when the library was imported: a test or a mirror may set it later.
    endpoint = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    where = f"{repo_id}{f' at {revision}' if revision else ''}"
    try:
        return Path(hf_hub_download(repo_id, name, revision=revision, endpoint=endpoint))
    except LocalEntryNotFoundError as error:
        raise ProcessorError(
            f"{name} of {where} is not in the local cache and {endpoint} cannot be reached "
            f"({error.__cause__ or error}). Check the network or give a local folder."
        ) from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ProcessorError(
            f"{where} cannot be read from {endpoint}: {reason} If it is a local folder, it does not exist; "
            "if it is private, log in with `hf auth login`."
        ) from None
