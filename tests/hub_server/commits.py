"""Endpoints that make a commit: checking the card, asking how to send each file, and the commit itself."""

from __future__ import annotations

import base64
import json
import re
from pathlib import PurePosixPath
from typing import Any

from tests.hub_server.call import REPO, Call, Reply, route
from tests.hub_server.store import LFS_SUFFIXES, Entry, Refusal, check_path


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Reply:
    import yaml

    content, errors = call.json().get("content", ""), []
    front = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    try:
        parsed = yaml.safe_load(front.group(1)) if front else {}
        if not isinstance(parsed, dict):
            errors.append({"message": "The front matter is not a mapping"})
    except yaml.YAMLError as error:
        errors.append({"message": f"Invalid YAML: {error}"})
    return Reply({"errors": errors, "warnings": []}, status=400 if errors else 200)


@route("POST", REPO + "/preupload/(?P<revision>[^/]+)")
def preupload(call: Call) -> Reply:
    repo = call.repo(write=True)
    if call.part["revision"] not in repo.branches:
        raise Refusal(404, f"Invalid rev id: {call.part['revision']}", "RevisionNotFound")
    head, wanted = repo.resolve(call.part["revision"]), call.json()["files"]
    if len(wanted) > 256:
        raise Refusal(400, "At most 256 files a call")
    answer = []
    for file in wanted:
        path = check_path(file["path"])
        is_large = PurePosixPath(path).suffix in LFS_SUFFIXES or file["size"] > call.hub.lfs_threshold_bytes
        row = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
        if existing := head.files.get(path):
            row["oid"] = existing.sha256 if existing.is_lfs else existing.oid
        answer.append(row)
    return Reply({"files": answer})


@route("POST", REPO + "/commit/(?P<revision>[^/]+)")
def commit(call: Call) -> Reply:
    repo, branch = call.repo(write=True), call.part["revision"]
    if call.flag("create_pr"):
        raise Refusal(400, "This server has no pull requests")
    if branch not in repo.branches:
        raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    head = repo.resolve(branch)
    try:
        lines = [json.loads(line) for line in b"".join(call.chunks).splitlines() if line.strip()]
    except ValueError:
        raise Refusal(400, "The commit is not one JSON object a line") from None
    if not lines or lines[0].get("key") != "header" or not lines[0]["value"].get("summary"):
        raise Refusal(400, "A commit begins with a header that has a summary")
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, "", head.id):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines[1:]:  # into a copy: a line that is refused leaves the branch as it was
        _apply_line(call, files, line["key"], line["value"])
    store, author = call.hub.store, call.signed_in().name
    new = store.append(
        repo, branch, files, title=header["summary"], message=header.get("description") or "", author=author
    )
    url = f"{call.hub.url(repo.kind, repo.id)}/commit/{new.id}"
    return Reply({"success": True, "commitOid": new.id, "commitUrl": url})


def _apply_line(call: Call, files: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
    path = check_path(value["path"].rstrip("/") if key == "deletedFolder" else value["path"])
    if key == "file":
        if value.get("encoding") != "base64":
            raise Refusal(400, f"{path}: encoding must be base64")
        files[path] = call.hub.store.regular_entry(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        files[path] = _large_entry(call, path, value)
    elif key == "deletedFile":
        if path not in files:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        del files[path]
    elif key == "deletedFolder":
        gone = [name for name in files if name.startswith(f"{path}/")]
        if not gone:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise Refusal(400, f"Unknown line in a commit: {key}")


def _large_entry(call: Call, path: str, value: dict[str, Any]) -> Entry:
    store, sha256 = call.hub.store, value["oid"]
    if value.get("algo", "sha256") != "sha256":
        raise Refusal(400, f"{path}: unknown algorithm {value['algo']}")
    if store.has_blob(sha256):
        size = store.blob_path(sha256).stat().st_size
        if value.get("size", size) != size:
            raise Refusal(400, f"{path}: size is {size}, not {value['size']}")
        return store.lfs_entry(sha256, size)
    if xet_hash := call.hub.xet_hashes().get(sha256):
        return store.lfs_entry(sha256, value["size"], xet_hash)
    raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {path}")
