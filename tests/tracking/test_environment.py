from __future__ import annotations

import json
import subprocess
import sys

from lerobot_ray.tracking.environment import describe_code, describe_environment


def test_environment_names_versions_and_hardware_as_json():
    import torch

    found = json.loads(json.dumps(describe_environment()))
    assert found["python"].startswith("3.")
    assert found["cpus"] >= 1
    assert found["memory_gb"] > 0.1
    assert found["versions"]["torch"] == torch.__version__
    assert found["devices"]
    assert found["packages"]["numpy"]


def test_devices_do_not_import_torch():
    code = (
        "import sys\nfrom lerobot_ray.tracking.environment import describe_environment as describe\n"
        "assert 'devices' not in describe()\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_code_is_described_by_its_commit(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    assert describe_code(tmp_path) == {}
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    clean = describe_code(tmp_path)
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] is False
    (tmp_path / "a.py").write_text("2")
    assert describe_code(tmp_path) == {**clean, "git_dirty": True}
