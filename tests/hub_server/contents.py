"""Endpoints that read what a commit holds: the tree, single paths, and the bytes themselves."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from tests.hub_server.call import FILES, REPO, Call, Reply, page, route
from tests.hub_server.store import Entry, Refusal, pointer_size


@route("GET", REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?")
def tree(call: Call) -> Reply:
    commit = call.repo().resolve(call.part["revision"])
    below = call.part["path"].strip("/")
    prefix = f"{below}/" if below else ""
    inside = {path: entry for path, entry in commit.files.items() if path.startswith(prefix)}
    if below and not inside:
        raise Refusal(404, f"{below} does not exist on {call.part['revision']!r}", "EntryNotFound")
    rows: dict[str, dict[str, Any]] = {}
    for path, entry in inside.items():
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            rows[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        rows[path] = tree_row(path, entry)
    if not call.flag("recursive"):
        rows = {path: row for path, row in rows.items() if "/" not in path[len(prefix) :]}
    return page(call, [rows[path] for path in sorted(rows)])


@route("POST", REPO + "/paths-info/(?P<revision>[^/]+)")
def paths_info(call: Call) -> Reply:
    commit = call.repo().resolve(call.part["revision"])
    body = b"".join(call.chunks).decode()
    asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
    return Reply([tree_row(path, commit.files[path]) for path in asked if path in commit.files])


@route("GET", FILES + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(call: Call) -> Reply:
    repo, path = call.repo(), call.part["path"]
    commit = repo.resolve(call.part["revision"])
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    entry = commit.files.get(path)
    if entry is None:
        refusal = Refusal(404, f"{path} does not exist on {call.part['revision']!r}", "EntryNotFound")
        refusal.headers = headers
        raise refusal
    headers["ETag"] = f'"{entry.sha256 if entry.is_lfs else entry.oid}"'
    if entry.xet_hash:
        read_token = f"{call.hub.endpoint}/api/{repo.kind}s/{repo.id}/xet-read-token/{commit.id}"
        headers |= {"X-Xet-Hash": entry.xet_hash, "Link": f'<{read_token}>; rel="xet-auth"'}
        headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": headers["ETag"]}
        if not call.hub.store.has_blob(entry.sha256):  # its bytes are chunks in the Xet folder, nothing to serve here
            return Reply(status=200 if call.method == "HEAD" else 501, headers=headers)
    if entry.is_lfs and call.hub.cdn_endpoint:
        headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": headers["ETag"]}
        return Reply(status=302, headers=headers | {"Location": f"{call.hub.cdn_endpoint}/cdn/{entry.sha256}"})
    return Reply(file=entry.sha256, headers=headers)


@route("GET", "/cdn/(?P<sha256>[0-9a-f]{64})")
def cdn(call: Call) -> Reply:
    """Where large files are redirected to. No token needed, and none may arrive: clients must not send it along."""
    if call.user is not None:
        raise Refusal(400, "A token was sent to another origin")
    if not call.hub.store.has_blob(call.part["sha256"]):
        raise Refusal(404, "No such object")
    return Reply(file=call.part["sha256"], headers={"ETag": f'"{call.part["sha256"]}"', "Accept-Ranges": "bytes"})


def tree_row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.is_lfs:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer_size(entry)}
    if entry.xet_hash:
        row["xetHash"] = entry.xet_hash
    return row
