"""What the folder of an adapter holds besides a policy's `config.json`: its settings, and weights that are its own.

adapter_config.json           the method and its settings, and the base: `base_model_name_or_path`, `revision`
adapter_model.safetensors     the adapter's tensors; the base is not among them
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import PolicyError, StorageError
from lerobot_ray.core.layout import ADAPTER_CONFIG_NAME, LAST_LINK
from lerobot_ray.policies.config_file import policy_folder
from lerobot_ray.policies.hub import fetch_file


def adapter_file(place: str | Path, name: str, *, revision: str | None = None) -> Path:
    """The file `name` of the adapter in a folder, a checkpoint or a Hub repository. StorageError when it has none."""
    if is_local(place):
        path = policy_folder(place) / name
        if not path.is_file():
            raise StorageError(f"{path} is not there.")
        return path
    return fetch_file(str(place), name, revision=revision)


def holds_adapter(place: str | Path, *, revision: str | None = None) -> bool:
    """Whether the policy there is an adapter rather than a whole model."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        adapter_file(place, ADAPTER_CONFIG_NAME, revision=revision)
    except StorageError as error:
        cause = error.__cause__
        has_none = isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError)
        if is_local(place) or has_none:
            return False
        raise
    return True


def read_settings(place: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """The contents of `adapter_config.json`."""
    path = adapter_file(place, ADAPTER_CONFIG_NAME, revision=revision)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PolicyError(f"{path} is not JSON ({error}). Save or download the adapter again.") from error
    if not isinstance(settings, dict) or not settings.get("peft_type"):
        raise PolicyError(f"{path} does not name a peft_type. Is it the adapter_config.json of an adapter?")
    return settings


def write_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Writes `adapter_config.json` as `peft` does."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, indent=2, sort_keys=True)
    (folder / ADAPTER_CONFIG_NAME).write_text(text, encoding="utf-8")


def base_of(settings: Mapping[str, Any], *, place: str | Path, instead: str | None = None) -> str:
    """Where the adapter's base is: a folder that is here, or a repository; `instead` if the folder is not here.

    PolicyError when no base is named, or it is a folder that cannot be found.
    """
    base = settings.get("base_model_name_or_path")
    if not base:
        raise PolicyError(
            f"the adapter in {place} names no base: base_model_name_or_path in its {ADAPTER_CONFIG_NAME} is empty. "
            "Write the folder or repository of the policy it was trained on there."
        )
    if is_local(base):
        return pinned(base)
    if not (Path(base).is_absolute() or str(base).startswith((".", "~")) or str(base).count("/") != 1):
        return str(base)
    if instead is not None and (not is_local(instead) or not holds_adapter(instead)):
        return pinned(instead)
    raise PolicyError(
        f"the adapter in {place} was trained on {base}, which is not here. Put that policy there, or write where it is "
        f"into base_model_name_or_path of the adapter's {ADAPTER_CONFIG_NAME}. A base on the Hub is found everywhere."
    )


def pinned(place: str | Path) -> str:
    """A folder's absolute path, its `last` replaced by the step that it means now; a repository as it is."""
    if not is_local(place):
        return str(place)
    path = Path(os.path.abspath(Path(place).expanduser()))
    for link in (path, *path.parents):
        if link.name == LAST_LINK and link.is_symlink():
            return str(link.parent / link.readlink() / path.relative_to(link))
    return str(path)


def is_local(place: str | Path) -> bool:
    return Path(place).expanduser().is_dir()
