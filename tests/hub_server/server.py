"""HTTP for the loopback Hub: threads, keep-alive, ranges, faults, the request log."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_server import commits, contents, job_endpoints, large_files, repos  # noqa: F401 (they fill the table)
from tests.hub_server.call import Call, Reply, User, dispatch
from tests.hub_server.faults import Fault, FaultBook, Request
from tests.hub_server.jobs import Job, Jobs
from tests.hub_server.store import Refusal, Store
from tests.hub_server.xet import hashes_in

CHUNK = 1 << 16


class HubServer:
    """A Hub on 127.0.0.1. A context manager: serves from entry to exit, in threads of this process."""

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        port: int = 0,
        page_size: int = 1000,
        lfs_threshold_bytes: int = 10_000_000,
        multipart_bytes: int = 0,
        redirect_large_files: bool = False,
        xet: bool = False,
        job_runner: Callable[[Job], None] | None = None,
    ) -> None:
        """`multipart_bytes`: larger uploads come in parts of this size (0: never). `redirect_large_files`: to another
        origin, as the real Hub does. `xet`: answer with Xet tokens, keep chunks below `root`."""
        self._own_root = root is None
        self.store = Store(Path(root) if root is not None else Path(tempfile.mkdtemp(prefix="hub-server-")))
        self.page_size, self.lfs_threshold_bytes, self.multipart_bytes = page_size, lfs_threshold_bytes, multipart_bytes
        self.users: dict[str, User] = {}
        self.parts: dict[tuple[str, int], str] = {}
        self.jobs = Jobs(job_runner)
        self.book = FaultBook()
        self.xet_dir = (self.store.root / "xet").absolute() if xet else None
        if self.xet_dir is not None:
            self.xet_dir.mkdir(exist_ok=True)
        self._http = _Http(("127.0.0.1", port), _handler_for(self))
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self.cdn_endpoint = f"http://localhost:{self._http.server_port}" if redirect_large_files else ""
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self._own_root:
            self.store.wipe()

    def add_user(self, name: str, *, role: str = "write", orgs: tuple[str, ...] = (), token: str = "") -> str:
        """A token for this user. `role` is read or write."""
        token = token or f"hf_{uuid.uuid4().hex}"
        self.users[token] = User(name, role, orgs)
        return token

    def fault(self, path: str = "", **how: Any) -> Fault:
        """Add a rule, see `Fault`."""
        self.book.rules.append(Fault(path=path, **how))
        return self.book.rules[-1]

    def requests(self, path: str = "", method: str = "") -> list[Request]:
        """The log: requests whose decoded path matches the regular expression, oldest first."""
        return self.book.requests(path, method)

    def url(self, kind: str, repo_id: str) -> str:
        return f"{self.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"

    def xet_hashes(self) -> dict[str, str]:
        return hashes_in(self.xet_dir) if self.xet_dir is not None else {}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: clients that die in the middle of a download are what the tests are about."""


def _handler_for(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "hub-server", ""
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """The log is `HubServer.requests`."""

    def _serve(self) -> None:
        split = urlsplit(self.path)
        body = self._body()
        self._line = Request(self.command, unquote(split.path), split.query, self.headers.get("Range", ""))
        with self.hub.book.lock:
            self.hub.book.log.append(self._line)
        fault = self.hub.book.hit(self.command, unquote(self.path))
        try:
            if fault and fault.delay_s:
                time.sleep(fault.delay_s)
            if fault and fault.bytes_per_s:
                body = _slowly(body, fault.bytes_per_s)
            reply = self._answer(split.path, parse_qs(split.query, keep_blank_values=True), body, fault)
            for _ in body:  # what an endpoint left unread would be taken for the next request
                pass
            self._send(reply, fault)
        except (TimeoutError, ConnectionError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, path: str, query: dict[str, list[str]], body: Iterator[bytes], fault: Fault | None) -> Reply:
        try:
            if fault and fault.status:
                raise Refusal(fault.status, fault.message, fault.code)
            call = Call(self.hub, self.command, path, query, self._identify(), body)
            # Serving bytes takes no lock; deciding what to serve, and every change, happens one at a time.
            if path.startswith("/lfs/"):
                return dispatch(call)
            with self.hub.store.lock:
                return dispatch(call)
        except (KeyError, TypeError, ValueError) as error:
            return Reply({"error": f"a body this endpoint does not understand: {error!r}"}, 400)
        except Refusal as refusal:
            headers = dict(refusal.headers)
            headers["X-Error-Message"] = refusal.message
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            if fault and fault.retry_after_s is not None:
                headers["Retry-After"] = f"{fault.retry_after_s:g}"
            return Reply({"error": refusal.message, **refusal.extra}, refusal.status, headers)

    def _identify(self) -> User | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if not token:
            return None
        user = self.hub.users.get(token) if scheme == "Bearer" else None
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        self._line.user = user.name
        return user

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            chunk = self.rfile.read(min(left, CHUNK))
            if not chunk:
                raise ConnectionError("the client went away")
            left -= len(chunk)
            yield chunk

    # Sending

    def _send(self, reply: Reply, fault: Fault | None) -> None:
        headers = {"X-Request-Id": uuid.uuid4().hex, **reply.headers}
        if reply.file:
            self._send_file(reply, headers, fault)
            return
        body = reply.body
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        self._start(reply.status, headers, len(body))
        if self.command != "HEAD":
            self._write(iter([body]), fault)

    def _send_file(self, reply: Reply, headers: dict[str, str], fault: Fault | None) -> None:
        path = self.hub.store.blob_path(reply.file)
        size = path.stat().st_size
        start, stop, status = 0, size, reply.status
        if span := _range(self.headers.get("Range", ""), size):
            start, stop = span
            if start >= size:
                self._start(416, {"Content-Range": f"bytes */{size}"}, 0)
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
        headers.setdefault("Content-Type", "application/octet-stream")
        self._start(status, headers, stop - start)
        if self.command != "HEAD":
            self._write(_slice(path, start, stop), fault)

    def _start(self, status: int, headers: dict[str, str], length: int) -> None:
        self._line.status = status
        self.send_response(status)  # sends Date, exactly once: the client's log reader compares against it
        for name, value in headers.items():
            self.send_header(name, value.encode("latin-1", "replace").decode("latin-1"))
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _write(self, chunks: Iterator[bytes], fault: Fault | None) -> None:
        left = fault.cut_after if fault and fault.cut_after is not None else None
        for number, chunk in enumerate(chunks):
            if fault and fault.corrupt and number == 0:
                chunk = bytes([chunk[0] ^ 0xFF]) + chunk[1:]
            if left is not None:
                chunk, left = chunk[:left], left - len(chunk[:left])
            self.wfile.write(chunk)
            self._line.sent_bytes += len(chunk)
            if fault and fault.bytes_per_s:
                time.sleep(len(chunk) / fault.bytes_per_s)
            if left == 0:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionError("cut by a fault")


def _slowly(chunks: Iterator[bytes], bytes_per_s: float) -> Iterator[bytes]:
    for chunk in chunks:
        time.sleep(len(chunk) / bytes_per_s)
        yield chunk


def _slice(path: Path, start: int, stop: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while start < stop:
            chunk = file.read(min(CHUNK, stop - start))
            start += len(chunk)
            yield chunk


def _range(header: str, size: int) -> tuple[int, int] | None:
    """[start, stop) of a `Range` header with one range, or None to serve everything."""
    unit, _, span = header.partition("=")
    first, dash, last = span.partition("-")
    if unit != "bytes" or not dash or "," in span or not (first or last):
        return None
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
