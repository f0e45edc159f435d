"""Endpoints that take the bytes of large files before a commit names them: LFS in one piece or in parts, and Xet."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tests.hub_server.call import FILES, REPO, Call, Reply, route
from tests.hub_server.store import Refusal


@route("POST", FILES + r"\.git/info/lfs/objects/batch")
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


@route("GET", REPO + "/xet-(?P<right>read|write)-token/(?P<revision>[^/]+)")
def xet_token(call: Call) -> Reply:
    call.repo(write=call.part["right"] == "write")
    if call.hub.xet_dir is None:
        raise Refusal(404, "Xet is off on this server")
    url, expires = f"local://{call.hub.xet_dir}", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "none", "X-Xet-Token-Expiration": str(expires)}
    return Reply({"casUrl": url, "accessToken": "none", "exp": expires}, headers=headers)
