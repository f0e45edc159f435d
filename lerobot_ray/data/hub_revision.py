"""Which commit of a dataset repository a revision means: LeRobot's rule, as a pure function of the refs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from lerobot_ray.core.errors import StorageError, VersionError
from lerobot_ray.core.layout import FORMAT_VERSION

CONVERTER = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id}"


def is_commit_id(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def choose_commit(repo_id: str, revision: str, *, branches: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """The commit of `revision` among `branches` and `tags` (name -> commit).

    An exact name wins. A version that is not there (`v3.0`, the default) means the highest tag of the same major
    version and at most that minor version. The format version of a dataset on the Hub is a tag, so a repository
    without one is not a LeRobot dataset as far as anyone can tell.
    """
    for refs in (tags, branches):
        if revision in refs:
            return refs[revision]
    versions = {name: version for name in tags if (version := _version(name)) is not None}
    there = f"It has {_names('branch', branches)} and {_names('tag', tags)}."
    wanted = _version(revision)
    if wanted is None:
        raise StorageError(f"{repo_id} has no branch, tag or commit {revision!r}. {there}")
    if not versions:
        raise VersionError(
            f"{repo_id} has no version tag, so its format is unknown. {there} If it is a {FORMAT_VERSION} dataset, tag "
            f"it: HfApi().create_tag({repo_id!r}, tag={FORMAT_VERSION!r}, repo_type='dataset'). Or name one of its "
            f"branches as the revision."
        )
    fitting = {name: v for name, v in versions.items() if v.major == wanted.major and v.minor <= wanted.minor}
    if fitting:
        return tags[max(fitting, key=lambda name: fitting[name])]
    older = {name: v for name, v in versions.items() if v.major < wanted.major}
    if older:
        newest = max(older, key=lambda name: older[name])
        raise VersionError(
            f"{repo_id} is in format {newest}, this package reads {FORMAT_VERSION}. Convert it with LeRobot: "
            f"{CONVERTER.format(repo_id=repo_id)}. {there}"
        )
    raise VersionError(
        f"{repo_id} has only versions newer than {revision}. {there} Upgrade lerobot_ray, or ask the dataset's owner "
        f"for a {FORMAT_VERSION} revision."
    )


def _version(name: str) -> Version | None:
    try:
        return Version(name) if re.match(r"v?\d", name) else None
    except InvalidVersion:
        return None


def _names(kind: str, refs: Mapping[str, str]) -> str:
    plural = {"branch": "branches", "tag": "tags"}[kind]
    return f"the {kind if len(refs) == 1 else plural} {', '.join(sorted(refs))}" if refs else f"no {plural}"
