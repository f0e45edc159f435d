"""What each endpoint answers: one function per endpoint, from a `Call` to a `Reply`. HTTP itself is in `server`."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from tests.hub_server.jobs import HARDWARE
from tests.hub_server.store import LFS_SUFFIXES, Entry, Refusal, Repo, check_path, lfs_pointer

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


@dataclass(frozen=True)
class User:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in (self.name, *self.orgs)


@dataclass
class Call:
    """One request, as an endpoint sees it."""

    hub: HubServer
    method: str
    path: str
    query: dict[str, list[str]]
    user: User | None
    chunks: Iterator[bytes]
    part: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        body = b"".join(self.chunks)
        try:
            return json.loads(body or b"{}")
        except ValueError:
            raise Refusal(400, "The body is not JSON") from None

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")

    # Rights

    def signed_in(self) -> User:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        return self.user

    def repo(self, *, write: bool = False) -> Repo:
        """The repository in the path, if this user may know of it."""
        kind = {"datasets": "dataset", "spaces": "space"}.get(self.part["kinds"].strip("/"), "model")
        repo = self.hub.store.repos.get((kind, self.part["id"]))
        namespace = self.part["id"].split("/")[0]
        insider = self.user is not None and namespace in (self.user.name, *self.user.orgs)
        if repo is None or (repo.private and not insider):
            raise Refusal(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and not self.signed_in().may_write(namespace):
            raise Refusal(403, f"You don't have write rights on {self.part['id']}")
        return repo


@dataclass
class Reply:
    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    file: str = ""
    """sha256 of a blob to serve instead of `body`."""


Endpoint = Callable[[Call], Reply]
_ROUTES: list[tuple[str, re.Pattern[str], Endpoint]] = []
_REPO = r"/api/(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_FILES = r"/(?P<kinds>datasets/|spaces/|)(?P<id>[^/]+/[^/]+)"


def route(method: str, pattern: str) -> Callable[[Endpoint], Endpoint]:
    def register(endpoint: Endpoint) -> Endpoint:
        _ROUTES.append((method, re.compile(pattern), endpoint))
        return endpoint

    return register


def dispatch(call: Call) -> Reply:
    """Find the endpoint by the path as it was sent: a branch `a/b` arrives as one segment `a%2Fb`."""
    for method, pattern, endpoint in _ROUTES:
        if (match := pattern.fullmatch(call.path)) and call.method in (method, "HEAD" if method == "GET" else ""):
            call.part = {name: unquote(value or "") for name, value in match.groupdict().items()}
            return endpoint(call)
    raise Refusal(404, f"This server has no {call.method} {call.path}")


# Account and repositories


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Reply:
    user = call.signed_in()
    orgs = [{"name": org, "type": "org"} for org in user.orgs]
    return Reply({"type": "user", "name": user.name, "orgs": orgs, "auth": {"accessToken": {"role": user.role}}})


@route("GET", "/api/agent-harnesses")
def agent_harnesses(call: Call) -> Reply:
    return Reply({})


@route("POST", "/api/repos/create")
def create_repo(call: Call) -> Reply:
    user, wanted = call.signed_in(), call.json()
    kind, namespace = wanted.get("type") or "model", wanted.get("organization") or user.name
    repo_id = f"{namespace}/{wanted['name']}"
    if not user.may_write(namespace):
        raise Refusal(403, f"You don't have the rights to create a {kind} under the namespace {namespace!r}")
    url = call.hub.url(kind, repo_id)
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    try:
        call.hub.store.create(kind, repo_id, private=private, author=user.name)
    except Refusal as refusal:
        refusal.extra["url"] = url
        raise
    return Reply({"url": url})


@route("DELETE", "/api/repos/delete")
def delete_repo(call: Call) -> Reply:
    wanted = call.json()
    namespace = wanted.get("organization") or call.signed_in().name
    call.part = {"kinds": f"{wanted.get('type') or 'model'}s", "id": f"{namespace}/{wanted['name']}"}
    call.hub.store.delete(call.repo(write=True))
    return Reply()


@route("PUT", _REPO + "/settings")
def settings(call: Call) -> Reply:
    repo, wanted = call.repo(write=True), call.json()
    repo.private = wanted.get("visibility", "") == "private" or bool(wanted.get("private", False))
    call.hub.store.save(repo)
    return Reply({"private": repo.private})


@route("GET", _REPO + "(?:/revision/(?P<revision>[^/]+))?")
def repo_info(call: Call) -> Reply:
    repo = call.repo()
    commit = repo.resolve(call.part["revision"] or "main")
    siblings: list[dict[str, Any]] = []
    for path, entry in sorted(commit.files.items()):
        sibling: dict[str, Any] = {"rfilename": path}
        if call.flag("blobs"):
            sibling |= {"size": entry.size, "blobId": entry.oid}
            if entry.is_lfs:
                sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": _pointer_size(entry)}
        siblings.append(sibling)
    about = {"author": repo.id.split("/")[0], "tags": [], "gated": False, "disabled": False, "downloads": 0, "likes": 0}
    dates = {"lastModified": commit.date, "createdAt": repo.history(commit.id)[-1].date}
    return Reply({"id": repo.id, "sha": commit.id, "private": repo.private, "siblings": siblings, **about, **dates})


@route("GET", _REPO + "/refs")
def refs(call: Call) -> Reply:
    repo = call.repo()

    def rows(kind: str, named: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in sorted(named.items())]

    answer = {"branches": rows("heads", repo.branches), "tags": rows("tags", repo.tags), "converts": []}
    return Reply(answer | ({"pullRequests": []} if call.flag("include_prs") else {}))


@route("GET", _REPO + "/commits/(?P<revision>[^/]+)")
def commits(call: Call) -> Reply:
    rows = [
        {"id": c.id, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
        for c in call.repo().history(call.part["revision"])
    ]
    return _page(call, rows)


@route("POST", _REPO + "/tag/(?P<revision>[^/]+)")
def create_tag(call: Call) -> Reply:
    repo = call.repo(write=True)
    repo.create_tag(call.json()["tag"], call.part["revision"])
    call.hub.store.save(repo)
    return Reply(status=201)


@route("DELETE", _REPO + "/tag/(?P<name>[^/]+)")
def delete_tag(call: Call) -> Reply:
    repo = call.repo(write=True)
    repo.delete_ref(repo.tags, call.part["name"])
    call.hub.store.save(repo)
    return Reply(status=204)


@route("POST", _REPO + "/branch/(?P<name>[^/]+)")
def create_branch(call: Call) -> Reply:
    repo = call.repo(write=True)
    repo.create_branch(call.part["name"], call.json().get("startingPoint") or "main")
    call.hub.store.save(repo)
    return Reply(status=201)


@route("DELETE", _REPO + "/branch/(?P<name>[^/]+)")
def delete_branch(call: Call) -> Reply:
    repo = call.repo(write=True)
    if call.part["name"] == "main":
        raise Refusal(403, "The main branch cannot be deleted")
    repo.delete_ref(repo.branches, call.part["name"])
    call.hub.store.save(repo)
    return Reply(status=204)


# What a commit holds


@route("GET", _REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?")
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
        rows[path] = _tree_row(path, entry)
    if not call.flag("recursive"):
        rows = {path: row for path, row in rows.items() if "/" not in path[len(prefix) :]}
    return _page(call, [rows[path] for path in sorted(rows)])


@route("POST", _REPO + "/paths-info/(?P<revision>[^/]+)")
def paths_info(call: Call) -> Reply:
    commit = call.repo().resolve(call.part["revision"])
    body = b"".join(call.chunks).decode()
    asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
    return Reply([_tree_row(path, commit.files[path]) for path in asked if path in commit.files])


@route("GET", _FILES + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
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


# Committing


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


@route("POST", _REPO + "/preupload/(?P<revision>[^/]+)")
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


@route("POST", _REPO + "/commit/(?P<revision>[^/]+)")
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


# Large files


@route("POST", _FILES + r"\.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Reply:
    call.repo(write=True)
    answer, wanted = [], call.json()
    if wanted.get("operation") != "upload":
        raise Refusal(400, "Only uploads use the batch endpoint here")
    for item in wanted["objects"]:
        oid, size = item["oid"], item["size"]
        row: dict[str, Any] = {"oid": oid, "size": size}
        if not re.fullmatch("[0-9a-f]{64}", oid):
            row["error"] = {"code": 422, "message": f"Invalid oid {oid!r}"}
        elif not call.hub.store.has_blob(oid):
            row["actions"] = {
                "upload": _upload_action(call, oid, size),
                "verify": {"href": f"{call.hub.endpoint}/lfs/verify", "header": {}},
            }
        answer.append(row)
    return Reply({"transfer": "basic", "objects": answer}, headers={"Content-Type": "application/vnd.git-lfs+json"})


def _upload_action(call: Call, oid: str, size: int) -> dict[str, Any]:
    chunk = call.hub.multipart_bytes
    if not chunk or size <= chunk:
        return {"href": f"{call.hub.endpoint}/lfs/object/{oid}", "header": {}}
    parts = {str(n + 1): f"{call.hub.endpoint}/lfs/part/{oid}/{n + 1}" for n in range(-(-size // chunk))}
    return {"href": f"{call.hub.endpoint}/lfs/complete/{oid}", "header": {"chunk_size": str(chunk), **parts}}


@route("PUT", "/lfs/object/(?P<oid>[0-9a-f]{64})")
def lfs_put(call: Call) -> Reply:
    call.hub.store.put_blob(call.chunks, call.part["oid"])
    return Reply()


@route("PUT", "/lfs/part/(?P<oid>[0-9a-f]{64})/(?P<number>[0-9]+)")
def lfs_put_part(call: Call) -> Reply:
    sha256, _ = call.hub.store.put_blob(call.chunks)
    call.hub.parts[call.part["oid"], int(call.part["number"])] = sha256
    return Reply(headers={"ETag": f'"{sha256}"'})


@route("POST", "/lfs/complete/(?P<oid>[0-9a-f]{64})")
def lfs_complete(call: Call) -> Reply:
    oid, listed = call.part["oid"], call.json()["parts"]
    shas = [call.hub.parts.get((oid, part["partNumber"])) for part in listed]
    if any(sha is None or part["etag"].strip('"') != sha for sha, part in zip(shas, listed, strict=True)):
        raise Refusal(400, "A part is missing, or its ETag is another one")
    call.hub.store.put_blob(_joined(call, [sha for sha in shas if sha]), oid)
    return Reply()


def _joined(call: Call, shas: Iterable[str]) -> Iterator[bytes]:
    for sha in shas:
        with call.hub.store.open_blob(sha) as blob:
            while chunk := blob.read(1 << 20):
                yield chunk


@route("POST", "/lfs/verify")
def lfs_verify(call: Call) -> Reply:
    call.signed_in()
    wanted = call.json()
    if not call.hub.store.has_blob(wanted["oid"]):
        raise Refusal(404, "Object not found")
    return Reply()


@route("GET", _REPO + "/xet-(?P<right>read|write)-token/(?P<revision>[^/]+)")
def xet_token(call: Call) -> Reply:
    call.repo(write=call.part["right"] == "write")
    if call.hub.xet_dir is None:
        raise Refusal(404, "Xet is off on this server")
    url, expires = f"local://{call.hub.xet_dir}", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "none", "X-Xet-Token-Expiration": str(expires)}
    return Reply({"casUrl": url, "accessToken": "none", "exp": expires}, headers=headers)


# Jobs


@route("GET", "/api/jobs/hardware")
def jobs_hardware(call: Call) -> Reply:
    return Reply(HARDWARE)


def _job_namespace(call: Call) -> str:
    namespace, user = call.part["namespace"], call.signed_in()
    if namespace not in (user.name, *user.orgs):
        raise Refusal(403, f"You don't have access to the jobs of {namespace}")
    return namespace


@route("POST", "/api/jobs/(?P<namespace>[^/]+)")
def run_job(call: Call) -> Reply:
    if call.signed_in().role != "write":
        raise Refusal(403, "A token with write rights is needed to run a job")
    return Reply(call.hub.jobs.create(_job_namespace(call), call.json()).as_json())


@route("GET", "/api/jobs/(?P<namespace>[^/]+)")
def list_jobs(call: Call) -> Reply:
    return Reply(call.hub.jobs.listing(_job_namespace(call), call.query))


@route("GET", "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[^/]+)")
def inspect_job(call: Call) -> Reply:
    return Reply(call.hub.jobs.get(_job_namespace(call), call.part["job"]).as_json())


@route("POST", "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[^/]+)/cancel")
def cancel_job(call: Call) -> Reply:
    job = call.hub.jobs.get(_job_namespace(call), call.part["job"])
    call.hub.jobs.set_stage(job, "CANCELED")
    return Reply(job.as_json())


@route("GET", "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[^/]+)/logs")
def job_logs(call: Call) -> Reply:
    job = call.hub.jobs.get(_job_namespace(call), call.part["job"])
    tail = int(call.query.get("tail", ["0"])[0]) or None
    return Reply(call.hub.jobs.events(job, tail), headers={"Content-Type": "text/event-stream"})


# Shared


def _pointer_size(entry: Entry) -> int:
    return len(lfs_pointer(entry.sha256, entry.size))


def _tree_row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.is_lfs:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": _pointer_size(entry)}
    if entry.xet_hash:
        row["xetHash"] = entry.xet_hash
    return row


def _page(call: Call, rows: list[dict[str, Any]]) -> Reply:
    """One page of `rows`, with a link to the next one."""
    start, size = int(call.query.get("cursor", ["0"])[0]), call.hub.page_size
    headers = {}
    if start + size < len(rows):
        query = "&".join(f"{name}={quote(v[0])}" for name, v in call.query.items() if name != "cursor")
        link = f"{call.hub.endpoint}{call.path}?{query}{'&' if query else ''}cursor={start + size}"
        headers["Link"] = f'<{link}>; rel="next"'
    return Reply(rows[start : start + size], headers=headers)
