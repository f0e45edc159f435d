"""Importing an entry module, its help and a config error cost no torch, ray, mlflow or peft: seconds together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lerobot_ray"
HEAVY = ("torch", "ray", "mlflow", "peft")
ENTRIES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
WRONG_ARGUMENTS = {
    "train": ["--dataset.repo_id=a/b", "--policy.type=act", "--policy.chunk_sise=3"],
    "dataset": ["no-such-command"],
    "tune": ["--sweep=/nonexistent.yaml", "--dataset.repo_id=a/b", "--policy.type=act"],
    "evaluate": ["--policy.path=/nonexistent", "--env.type=reech"],
    "cluster": ["check", "no-such-file.yaml"],
    "submit": ["--", "--dataset.repo_id=a/b", "--policy.type=act", "--policy.chunk_sise=3"],
}
"""Command lines that describe nothing, of the entries that take one."""


def report_of(entry: str, arguments: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs an entry in a process of its own, whose output ends with its exit code and the heavy modules it loaded."""
    code = f"""
import sys, lerobot_ray.{entry} as entry
code = 0
try:
    if {arguments!r} is not None:
        code = entry.main({arguments!r})
except SystemExit as end:
    code = end.code
print()
print(code, [name for name in {HEAVY} if name in sys.modules])
"""
    return subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("entry", ENTRIES)
def test_importing_an_entry_is_light(entry):
    done = report_of(entry)
    assert done.stdout.split("\n")[-2] == "0 []", done.stderr


@pytest.mark.parametrize("entry", [entry for entry in WRONG_ARGUMENTS if entry in ENTRIES])
def test_help_is_light(entry):
    done = report_of(entry, ["--help"])
    assert "usage" in done.stdout.lower()
    assert done.stdout.split("\n")[-2] == "0 []", done.stderr


@pytest.mark.parametrize("entry", [entry for entry in WRONG_ARGUMENTS if entry in ENTRIES])
def test_a_config_error_is_one_line_exit_code_2_and_light(entry):
    done = report_of(entry, WRONG_ARGUMENTS[entry])
    assert done.stdout.split("\n")[-2] == "2 []", done.stderr
    assert "Traceback" not in done.stderr
    if entry == "train":
        assert done.stderr.count("\n") == 1
        assert "Did you mean --policy.chunk_size?" in done.stderr
