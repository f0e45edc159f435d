"""The loopback Hub against the real client: what it must do, and what it must refuse."""

import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub_server import HubServer
from tests.hub_server.drive import PAYLOAD, drive

pytestmark = pytest.mark.hub
SERVER = Path(__file__).parent / "hub_server"


@pytest.fixture(autouse=True)
def lfs_and_quiet(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def alice(hub):
    api = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice"))
    api.create_repo("alice/ds", repo_type="dataset")
    return api


def ask(hub, method, path, body=None, **headers):
    """One raw request: (status, headers, body)."""
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def commit(api, *operations, **more):
    return api.create_commit("alice/ds", list(operations), commit_message="x", repo_type="dataset", **more)


def files(api, revision=None):
    return sorted(api.list_repo_files("alice/ds", repo_type="dataset", revision=revision))


@pytest.mark.parametrize(
    "how",
    [{}, {"page_size": 2, "multipart_bytes": 500_000, "redirect_large_files": True}, {"lfs_threshold_bytes": 0}],
    ids=["plain", "pages-parts-redirects", "all-large"],
)
def test_the_tour(tmp_path, how):
    with HubServer(tmp_path / "hub", **how) as hub:
        assert len(drive(hub.endpoint, hub.add_user("alice"), tmp_path)) == 7
        if how.get("multipart_bytes"):
            parts = hub.requests("/lfs/part/", "PUT")
            assert len(parts) == -(-len(PAYLOAD) // how["multipart_bytes"])
            assert hub.requests("/cdn/")
            assert any("cursor=" in request.query for request in hub.requests("/tree/"))


def tour_elsewhere(python, hub, token, tmp_path, **environment):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    command = [python, str(SERVER / "drive.py"), hub.endpoint, token]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
@pytest.mark.lerobot
def test_the_tour_with_the_client_lerobot_has(tmp_path, xet):
    if not (python := os.environ.get("PEER_PYTHON")):
        pytest.skip("PEER_PYTHON is not set")
    with HubServer(tmp_path / "hub", xet=xet) as hub:
        tour_elsewhere(python, hub, hub.add_user("alice"), tmp_path, HF_HUB_DISABLE_XET="" if xet else "1")


def test_a_large_file_through_xet(tmp_path):
    pytest.importorskip("hf_xet")
    with HubServer(tmp_path / "hub", xet=True) as hub:
        out = tour_elsewhere(sys.executable, hub, hub.add_user("alice"), tmp_path, HF_HUB_DISABLE_XET="")
        assert "xet" in out
        assert not hub.requests("/lfs/")
        assert not [request for request in hub.requests("/resolve/", "GET") if request.sent_bytes > 10_000]


def test_strangers_learn_nothing_of_a_private_repo(hub, alice):
    alice.update_repo_settings("alice/ds", repo_type="dataset", private=True)
    for api in (HfApi(endpoint=hub.endpoint, token=False), HfApi(endpoint=hub.endpoint, token=hub.add_user("bob"))):
        with pytest.raises(RepositoryNotFoundError):
            api.repo_info("alice/ds", repo_type="dataset")
        with pytest.raises(RepositoryNotFoundError):
            api.repo_info("alice/none", repo_type="dataset")
    assert alice.repo_info("alice/ds", repo_type="dataset").private


def test_rights(hub, alice):
    reader = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice", role="read"))
    add = CommitOperationAdd("a.txt", b"a")
    with pytest.raises(HfHubHTTPError, match="403"):
        commit(reader, add)
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_repo("alice/other")
    with pytest.raises(HfHubHTTPError, match="403"):
        alice.create_repo("bob/mine")
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_tag("alice/ds", tag="v1", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").whoami()
    team = HfApi(endpoint=hub.endpoint, token=hub.add_user("carol", orgs=("lab",)))
    assert team.create_repo("lab/model").endswith("/lab/model")


def test_commits_are_all_or_nothing(alice):
    before = files(alice)
    with pytest.raises(EntryNotFoundError):
        commit(alice, CommitOperationAdd("a.txt", b"a"), CommitOperationDelete("missing.txt"))
    assert files(alice) == before
    assert len(alice.list_repo_commits("alice/ds", repo_type="dataset")) == 1


def test_a_stale_parent_and_an_unknown_branch_are_refused(alice):
    old = alice.repo_info("alice/ds", repo_type="dataset").sha
    commit(alice, CommitOperationAdd("a.txt", b"a"), parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(alice, CommitOperationAdd("b.txt", b"b"), parent_commit=old)
    with pytest.raises(RevisionNotFoundError):
        commit(alice, CommitOperationAdd("b.txt", b"b"), revision="nowhere")
    assert files(alice) == [".gitattributes", "a.txt"]


def test_tags_and_branches_are_made_once(alice):
    alice.create_tag("alice/ds", tag="v3.0", repo_type="dataset")
    alice.create_tag("alice/ds", tag="v3.0", repo_type="dataset", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_tag("alice/ds", tag="v3.0", repo_type="dataset")
    alice.create_branch("alice/ds", branch="b", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_branch("alice/ds", branch="b", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        alice.create_tag("alice/ds", tag="v9", revision="nowhere", repo_type="dataset")
    commit(alice, CommitOperationAdd("later.txt", b"x"))
    assert files(alice, "v3.0") == [".gitattributes"]
    assert files(alice, "b") == [".gitattributes"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/abs", "a//b", ".git/config", ""])
def test_paths_outside_the_repo_are_refused(hub, alice, path):
    lines = [{"key": "header", "value": {"summary": "x"}}]
    lines += [{"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}}]
    body = "\n".join(map(json.dumps, lines))
    url = "/api/datasets/alice/ds/commit/main"
    assert ask(hub, "POST", url, body, Authorization=f"Bearer {alice.token}")[0] == 400


def test_large_files_are_what_they_say(hub, alice):
    right, auth = hashlib.sha256(b"content").hexdigest(), f"Bearer {alice.token}"
    assert ask(hub, "PUT", f"/lfs/object/{right}", b"other")[0] == 400
    value = {"path": "a.bin", "algo": "sha256", "oid": right, "size": 7}
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "lfsFile", "value": value}]
    body, url = "\n".join(map(json.dumps, lines)), "/api/datasets/alice/ds/commit/main"
    status, _, text = ask(hub, "POST", url, body, Authorization=auth)
    assert status == 400
    assert b"does not exist" in text
    assert ask(hub, "PUT", f"/lfs/object/{right}", b"content")[0] == 200
    wrong_size = body.replace('"size": 7', '"size": 8')
    assert ask(hub, "POST", url, wrong_size, Authorization=auth)[0] == 400
    assert ask(hub, "POST", url, body, Authorization=auth)[0] == 200
    assert ask(hub, "POST", "/lfs/verify", json.dumps({"oid": "0" * 64}), Authorization=auth)[0] == 404


def test_a_bad_readme_is_refused(alice):
    with pytest.raises(ValueError, match="Invalid YAML"):
        commit(alice, CommitOperationAdd("README.md", b"---\na: [\n---\n"))


def test_ranges_are_exact(hub, alice):
    commit(alice, CommitOperationAdd("a.bin", PAYLOAD))
    path = "/datasets/alice/ds/resolve/main/a.bin"
    for span, expected in (("0-0", PAYLOAD[:1]), ("5-", PAYLOAD[5:]), ("-3", PAYLOAD[-3:]), ("2-9999999", PAYLOAD[2:])):
        status, headers, body = ask(hub, "GET", path, Range=f"bytes={span}")
        assert (status, body) == (206, expected)
        assert headers["Content-Range"].endswith(f"/{len(PAYLOAD)}")
    assert ask(hub, "GET", path, Range=f"bytes={len(PAYLOAD)}-")[0] == 416
    status, headers, body = ask(hub, "HEAD", path)
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(PAYLOAD)
    assert re.fullmatch("[0-9a-f]{40}", headers["X-Repo-Commit"])
    status, headers, _ = ask(hub, "HEAD", "/datasets/alice/ds/resolve/main/none")
    assert (status, headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert headers["X-Repo-Commit"]


def test_faults_hit_the_requests_they_name(hub, alice):
    commit(alice, CommitOperationAdd("a.bin", PAYLOAD))
    path = "/datasets/alice/ds/resolve/main/a.bin"
    hub.fault("a.bin", method="GET", first=2, times=1, status=503, retry_after_s=7)
    hub.fault("a.bin", method="GET", first=3, times=1, cut_after=1000)
    hub.fault("a.bin", method="GET", first=4, times=1, corrupt=True)
    hub.fault("a.bin", method="GET", first=5, times=1, delay_s=0.3)
    hub.fault("a.bin", method="GET", first=6, times=1, bytes_per_s=len(PAYLOAD) * 4)
    assert ask(hub, "GET", path)[2] == PAYLOAD
    status, headers, _ = ask(hub, "GET", path)
    assert (status, headers["Retry-After"]) == (503, "7")
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(hub, "GET", path)
    assert len(cut.value.partial) == 1000
    body = ask(hub, "GET", path)[2]
    assert len(body) == len(PAYLOAD)
    assert body != PAYLOAD
    for at_least_s in (0.25, 0.2):
        begin = time.monotonic()
        assert ask(hub, "GET", path)[2] == PAYLOAD
        assert time.monotonic() - begin > at_least_s
    assert [r.status for r in hub.requests("a.bin", "GET")] == [200, 503, 200, 200, 200, 200]


def test_a_slow_line_is_slow_both_ways(hub, alice):
    hub.fault("/lfs/object/", method="PUT", bytes_per_s=len(PAYLOAD) * 4)
    begin = time.monotonic()
    commit(alice, CommitOperationAdd("a.bin", PAYLOAD))
    assert time.monotonic() - begin > 0.2


def test_no_token_is_written_anywhere(hub, alice, tmp_path):
    commit(alice, CommitOperationAdd("a.bin", PAYLOAD))
    hf_hub_download(
        "alice/ds",
        "a.bin",
        repo_type="dataset",
        endpoint=hub.endpoint,
        token=alice.token,
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(hub.requests()) > 5
    assert alice.token not in repr(hub.requests())
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and alice.token.encode() in f.read_bytes()]


def test_a_restart_keeps_everything(tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice"))
        api.create_repo("alice/ds", repo_type="dataset")
        head = commit(api, CommitOperationAdd("a.bin", PAYLOAD)).oid
        api.create_tag("alice/ds", tag="v3.0", repo_type="dataset")
    with HubServer(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice"))
        assert api.repo_info("alice/ds", repo_type="dataset", revision="v3.0").sha == head
        assert files(api) == [".gitattributes", "a.bin"]


def test_jobs(hub, alice):
    job = alice.run_job(
        image="python:3.12", command=["python", "-c", "1"], flavor="cpu-basic", secrets={"K": "v"}, namespace="alice"
    )
    assert alice.inspect_job(job_id=job.id, namespace="alice").status.stage == "SCHEDULING"
    stored = hub.jobs.by_id[job.id]
    hub.jobs.set_stage(stored, "RUNNING")
    hub.jobs.log(stored, "step 1")
    hub.jobs.log(stored, "step 2")
    hub.jobs.set_stage(stored, "COMPLETED")
    assert list(alice.fetch_job_logs(job_id=job.id, namespace="alice")) == ["step 1", "step 2"]
    assert [j.id for j in alice.list_jobs(namespace="alice")] == [job.id]
    status, _, body = ask(hub, "GET", f"/api/jobs/alice/{job.id}", Authorization=f"Bearer {alice.token}")
    assert (status, stored.secrets) == (200, {"K": "v"})
    assert json.loads(body)["secrets"] == ["K"]
    assert {h.name for h in alice.list_jobs_hardware()} == {"cpu-basic", "a10g-small"}
    stranger = HfApi(endpoint=hub.endpoint, token=hub.add_user("bob"))
    with pytest.raises(HfHubHTTPError):
        stranger.inspect_job(job_id=job.id, namespace="alice")
    other = alice.run_job(image="python:3.12", command=["sleep"], namespace="alice")
    alice.cancel_job(job_id=other.id, namespace="alice")
    assert alice.inspect_job(job_id=other.id, namespace="alice").status.stage == "CANCELED"


def test_by_hand(tmp_path):
    command = [sys.executable, str(SERVER), "--port", "0", "--root", str(tmp_path / "hub"), "--user", "bob"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            exports = dict(re.findall(r"export (\w+)=(\S+)", "".join(server.stdout.readline() for _ in range(3))))
            api = HfApi(endpoint=exports["HF_ENDPOINT"], token=exports["HF_TOKEN"])
            assert api.whoami()["name"] == "bob"
        finally:
            server.terminate()
