"""An S3 on this machine (moto), with a request log and faults by rule.

with S3Server() as s3:
    s3.put("bucket", {"a/b.bin": b"…"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)   # and s3.environment for keys and region
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


@dataclass(kw_only=True)
class S3Fault:
    """Applies to requests number `first` to `first + times - 1` (from 1) that match `method` and `path`."""

    path: str = ""
    method: str = ""
    first: int = 1
    times: int = 1_000_000
    status: int = 0
    code: str = "SlowDown"
    """The error code in the XML answer, with `status`."""
    cut_after: int | None = None
    delay_s: float = 0.0
    seen: int = 0


@dataclass
class S3Server:
    """Serves from entry to exit. Keys are not checked: any will do, some must be set."""

    environment: dict[str, str] = field(
        default_factory=lambda: {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
    faults: list[S3Fault] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    """(method, path with query), oldest first."""

    def __enter__(self) -> S3Server:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._http = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self.environment["AWS_ENDPOINT_URL"] = self.endpoint
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        from moto.s3.models import s3_backends

        for account in s3_backends.values():  # moto keeps buckets in the process, not in the server
            for backend in account.values():
                backend.reset()

    def client(self) -> Any:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.endpoint, **keys)

    def put(self, bucket: str, files: Mapping[str, bytes]) -> None:
        """Write objects, making the bucket if there is none. Not logged."""
        client = self.client()
        if bucket not in [row["Name"] for row in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=bucket)
        for key, content in files.items():
            client.put_object(Bucket=bucket, Key=key, Body=content)
        client.close()
        self.log.clear()

    def fault(self, path: str = "", **how: Any) -> S3Fault:
        self.faults.append(S3Fault(path=path, **how))
        return self.faults[-1]

    def requests(self, path: str = "", method: str = "") -> list[str]:
        """The logged paths that match the regular expression."""
        with self._lock:
            return [target for verb, target in self.log if method in ("", verb) and re.search(path, target)]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        target = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else "")
        fault = None
        with self._lock:
            self.log.append((method, target))
            for rule in self.faults:
                if rule.method in ("", method) and re.search(rule.path, target):
                    rule.seen += 1
                    if fault is None and rule.first <= rule.seen < rule.first + rule.times:
                        fault = rule
        if fault is None:
            return self._moto(environ, start_response)
        time.sleep(fault.delay_s)
        if fault.status:
            body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
            start_response(f"{fault.status} Fault", [("Content-Type", "application/xml")])
            return [body if method != "HEAD" else b""]
        body = self._moto(environ, start_response)
        return _cut(body, fault.cut_after) if fault.cut_after is not None else body


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """The log is `S3Server.log`."""


def _cut(body: Iterable[bytes], left: int) -> Iterator[bytes]:
    for chunk in body:
        yield chunk[:left]
        left -= len(chunk[:left])
        if left == 0:
            raise ConnectionAbortedError("cut by a fault")  # werkzeug drops the connection
