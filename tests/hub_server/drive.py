"""The whole tour with the `huggingface_hub` this interpreter has: `python tests/hub_server/drive.py ENDPOINT TOKEN`.

Standard library and the client alone, so that another interpreter, with another version of the client, can run it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

PAYLOAD = bytes(range(256)) * 9000


def drive(endpoint: str, token: str, work: Path) -> list[str]:
    """Everything LeRobot asks of a Hub, once. Returns what was done; fails on the first surprise."""
    from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download

    api, done = HfApi(endpoint=endpoint, token=token), []
    user = api.whoami()["name"]
    repo_id = f"{user}/tour"
    where = {"repo_id": repo_id, "repo_type": "dataset"}

    assert str(api.create_repo(**where, private=True)).endswith(f"/datasets/{repo_id}")
    api.create_repo(**where, exist_ok=True)
    done.append("create")

    folder = work / "folder"
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    (folder / "empty.txt").write_bytes(b"")
    (folder / "meta" / "info.json").write_text('{"codebase_version": "v3.0"}')
    (folder / "data" / "chunk-000" / "file-000.parquet").write_bytes(PAYLOAD)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA tour.\n")
    api.upload_folder(**where, folder_path=str(folder))
    again = api.upload_folder(**where, folder_path=str(folder))
    assert "README.md" in api.list_repo_files(**where), again
    assert len(api.list_repo_commits(**where)) == 2, "an unchanged folder made a commit"
    done.append("upload_folder")

    api.create_tag(**where, tag="v3.0")
    api.delete_tag(**where, tag="v3.0")
    api.create_tag(**where, tag="v3.0")
    api.create_branch(**where, branch="feat/x")
    tagged = api.repo_info(**where, revision="v3.0", files_metadata=True)
    api.upload_file(path_or_fileobj=b"one", path_in_repo="note.txt", **where, revision="feat/x")
    api.delete_file("README.md", **where)
    api.delete_folder("meta", **where)
    refs = api.list_repo_refs(**where)
    assert {b.name for b in refs.branches} == {"main", "feat/x"}
    assert [t.name for t in refs.tags] == ["v3.0"]
    assert refs.tags[0].target_commit == tagged.sha
    done.append("refs")

    files = {f.rfilename: f for f in tagged.siblings}
    assert files["data/chunk-000/file-000.parquet"].size == len(PAYLOAD)
    assert files["data/chunk-000/file-000.parquet"].lfs
    infos = api.get_paths_info(**where, paths=["empty.txt", "nothing"], revision="v3.0")
    assert [(i.path, i.size) for i in infos] == [("empty.txt", 0)]
    listed = [i.path for i in api.list_repo_tree(**where, revision="feat/x", recursive=True)]
    assert "note.txt" in listed
    assert "data/chunk-000" in listed
    assert api.file_exists(**where, filename="note.txt", revision="feat/x")
    assert not api.file_exists(**where, filename="note.txt")
    assert not api.repo_exists(f"{user}/nothing")
    done.append("listing")

    cache = {"cache_dir": str(work / "cache"), "endpoint": endpoint, "token": token}
    one = hf_hub_download(repo_id, "data/chunk-000/file-000.parquet", repo_type="dataset", revision="v3.0", **cache)
    assert Path(one).read_bytes() == PAYLOAD
    snapshot = snapshot_download(repo_id, repo_type="dataset", revision="v3.0", **cache)
    assert Path(snapshot, "meta/info.json").read_text() == '{"codebase_version": "v3.0"}'
    assert Path(snapshot, "empty.txt").read_bytes() == b""
    assert Path(snapshot).name == tagged.sha
    done.append("download")

    system = HfFileSystem(endpoint=endpoint, token=token, skip_instance_cache=True)
    with system.open(f"datasets/{repo_id}@v3.0/data/chunk-000/file-000.parquet", block_size=4096) as file:
        file.seek(1_000_000)
        assert file.read(100) == PAYLOAD[1_000_000:1_000_100]
    done.append("ranges")

    api.delete_repo(**where)
    assert not api.repo_exists(**where)
    done.append("delete")
    return done


def drive_xet(endpoint: str, token: str, work: Path) -> list[str]:
    """One round trip of a large file through `hf_xet`, the client's default way."""
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi(endpoint=endpoint, token=token)
    where = {"repo_id": f"{api.whoami()['name']}/xet", "repo_type": "model"}
    api.create_repo(**where)
    (work / "folder").mkdir()
    (work / "folder" / "model.safetensors").write_bytes(PAYLOAD)
    api.upload_folder(**where, folder_path=str(work / "folder"))
    (info,) = api.get_paths_info(**where, paths=["model.safetensors"])
    assert info.xet_hash, "the file did not go through Xet"
    cache = {"cache_dir": str(work / "cache"), "endpoint": endpoint, "token": token}
    assert Path(hf_hub_download(where["repo_id"], "model.safetensors", **cache)).read_bytes() == PAYLOAD
    api.delete_repo(**where)
    return ["xet"]


if __name__ == "__main__":
    import huggingface_hub.constants

    tour = drive if huggingface_hub.constants.HF_HUB_DISABLE_XET else drive_xet
    with tempfile.TemporaryDirectory() as work:
        print(huggingface_hub.__version__, *tour(sys.argv[1], sys.argv[2], Path(work)))
