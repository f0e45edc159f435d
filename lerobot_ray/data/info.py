"""info.json: is this a LeRobot dataset of a version we read, and does it say the minimum?

Unknown keys and newer minor versions are worth a warning, older formats an error that names the converter.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from lerobot_ray.core.errors import DatasetError, VersionError
from lerobot_ray.core.layout import FORMAT_VERSION, INFO_PATH
from lerobot_ray.data.storage import Storage

logger = logging.getLogger(__name__)

KNOWN_INFO_KEYS = frozenset(
    {
        "codebase_version",
        "fps",
        "features",
        "total_episodes",
        "total_frames",
        "total_tasks",
        "chunks_size",
        "data_files_size_in_mb",
        "video_files_size_in_mb",
        "data_path",
        "video_path",
        "robot_type",
        "splits",
        "tools",
    }
)
READ_VERSION = (3, 0)


def read_info(storage: Storage, repo_id: str) -> dict[str, Any]:
    """info.json as a dict whose version, fps and features can be relied on."""
    if not storage.exists(INFO_PATH):
        raise DatasetError(
            f"{repo_id}: {storage.identity()} has no {INFO_PATH}, so it is not a LeRobot dataset. Check "
            "dataset.repo_id and dataset.root."
        )
    info = read_json(storage, INFO_PATH, repo_id)
    if not isinstance(info, dict):
        raise DatasetError(f"{repo_id}: {INFO_PATH} is not a JSON object. Fetch the dataset again.")
    _check_version(str(info.get("codebase_version", "")), repo_id)
    for key in ("fps", "features"):
        if key not in info:
            raise DatasetError(f"{repo_id}: {INFO_PATH} has no {key!r}. Fetch the dataset again.")
    if not isinstance(info["features"], dict):
        raise DatasetError(f"{repo_id}: features in {INFO_PATH} is not an object of named entries.")
    if isinstance(info["fps"], bool) or not isinstance(info["fps"], (int, float)) or info["fps"] <= 0:
        raise DatasetError(f"{repo_id}: fps in {INFO_PATH} is {info['fps']!r}; expected a positive number.")
    unknown = sorted(set(info) - KNOWN_INFO_KEYS)
    if unknown:
        logger.warning("%s: %s has keys this version does not know: %s", repo_id, INFO_PATH, ", ".join(unknown))
    return info


def _check_version(version: str, repo_id: str) -> None:
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.\d+)?", version)
    if match is None:
        raise VersionError(f"{repo_id}: codebase_version in {INFO_PATH} is {version!r}; expected {FORMAT_VERSION!r}.")
    major, minor = int(match[1]), int(match[2])
    if major == 2:
        first = "" if minor == 1 else " (v2.0 must become v2.1 first, with an older LeRobot release)"
        raise VersionError(
            f"{repo_id} is of format {version}; this package reads {FORMAT_VERSION}. Convert it with LeRobot: "
            f"python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id}{first}"
        )
    if major < 2:
        raise VersionError(f"{repo_id} is of format {version}, which no current tool reads. Record or export it anew.")
    if major > READ_VERSION[0]:
        raise VersionError(
            f"{repo_id} is of format {version}, newer than {FORMAT_VERSION}, the newest this package reads. Upgrade "
            "lerobot_ray, or choose an older dataset.revision."
        )
    if minor > READ_VERSION[1]:
        logger.warning("%s is of format %s, newer than %s; reading it as %s", repo_id, version, *[FORMAT_VERSION] * 2)


def read_json(storage: Storage, path: str, repo_id: str) -> Any:
    """A JSON file of the dataset."""
    try:
        return json.loads(storage.local(path).read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError
        raise DatasetError(f"{repo_id}: {path} is not JSON ({error}). Fetch the dataset again.") from error
