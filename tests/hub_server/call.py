"""One request as an endpoint sees it, its reply, and the table that finds the endpoint for a path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from tests.hub_server.store import Refusal, Repo

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
REPO = r"/api/(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
FILES = r"/(?P<kinds>datasets/|spaces/|)(?P<id>[^/]+/[^/]+)"


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


def page(call: Call, rows: list[dict[str, Any]]) -> Reply:
    """One page of `rows`, with a link to the next one."""
    start, size = int(call.query.get("cursor", ["0"])[0]), call.hub.page_size
    headers = {}
    if start + size < len(rows):
        query = "&".join(f"{name}={quote(v[0])}" for name, v in call.query.items() if name != "cursor")
        link = f"{call.hub.endpoint}{call.path}?{query}{'&' if query else ''}cursor={start + size}"
        headers["Link"] = f'<{link}>; rel="next"'
    return Reply(rows[start : start + size], headers=headers)
