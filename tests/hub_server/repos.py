"""Endpoints of the account and of repositories as a whole: create, delete, describe, branches, tags, history."""

from __future__ import annotations

from typing import Any

from tests.hub_server.call import REPO, Call, Reply, page, route
from tests.hub_server.store import Refusal, pointer_size


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


@route("PUT", REPO + "/settings")
def settings(call: Call) -> Reply:
    repo, wanted = call.repo(write=True), call.json()
    repo.private = wanted.get("visibility", "") == "private" or bool(wanted.get("private", False))
    call.hub.store.save(repo)
    return Reply({"private": repo.private})


@route("GET", REPO + "(?:/revision/(?P<revision>[^/]+))?")
def repo_info(call: Call) -> Reply:
    repo = call.repo()
    commit = repo.resolve(call.part["revision"] or "main")
    siblings: list[dict[str, Any]] = []
    for path, entry in sorted(commit.files.items()):
        sibling: dict[str, Any] = {"rfilename": path}
        if call.flag("blobs"):
            sibling |= {"size": entry.size, "blobId": entry.oid}
            if entry.is_lfs:
                sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer_size(entry)}
        siblings.append(sibling)
    about = {"author": repo.id.split("/")[0], "tags": [], "gated": False, "disabled": False, "downloads": 0, "likes": 0}
    dates = {"lastModified": commit.date, "createdAt": repo.history(commit.id)[-1].date}
    return Reply({"id": repo.id, "sha": commit.id, "private": repo.private, "siblings": siblings, **about, **dates})


@route("GET", REPO + "/refs")
def refs(call: Call) -> Reply:
    repo = call.repo()

    def rows(kind: str, named: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in sorted(named.items())]

    answer = {"branches": rows("heads", repo.branches), "tags": rows("tags", repo.tags), "converts": []}
    return Reply(answer | ({"pullRequests": []} if call.flag("include_prs") else {}))


@route("GET", REPO + "/commits/(?P<revision>[^/]+)")
def commits(call: Call) -> Reply:
    rows = [
        {"id": c.id, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
        for c in call.repo().history(call.part["revision"])
    ]
    return page(call, rows)


@route("POST", REPO + "/tag/(?P<revision>[^/]+)")
def create_tag(call: Call) -> Reply:
    repo = call.repo(write=True)
    repo.create_tag(call.json()["tag"], call.part["revision"])
    call.hub.store.save(repo)
    return Reply(status=201)


@route("DELETE", REPO + "/tag/(?P<name>[^/]+)")
def delete_tag(call: Call) -> Reply:
    repo = call.repo(write=True)
    repo.delete_ref(repo.tags, call.part["name"])
    call.hub.store.save(repo)
    return Reply(status=204)


@route("POST", REPO + "/branch/(?P<name>[^/]+)")
def create_branch(call: Call) -> Reply:
    repo = call.repo(write=True)
    repo.create_branch(call.part["name"], call.json().get("startingPoint") or "main")
    call.hub.store.save(repo)
    return Reply(status=201)


@route("DELETE", REPO + "/branch/(?P<name>[^/]+)")
def delete_branch(call: Call) -> Reply:
    repo = call.repo(write=True)
    if call.part["name"] == "main":
        raise Refusal(403, "The main branch cannot be deleted")
    repo.delete_ref(repo.branches, call.part["name"])
    call.hub.store.save(repo)
    return Reply(status=204)
