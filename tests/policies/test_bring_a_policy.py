"""docs/bring-a-policy.md followed literally: its files are written, installed with pip, and its script is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bring-a-policy.md"


def run(command, cwd, **environment):
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(project folder, folder it is installed in) of the page's package."""
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("installed")
    blocks = re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [name for name, _ in blocks] == ["pyproject.toml", "tiny_mlp/config.py", "tiny_mlp/policy.py", "try_it.py"]
    for name, text in blocks:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    (project / "tiny_mlp" / "__init__.py").touch()
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    run([sys.executable, "-m", "pip", "install", *flags, "."], project)
    return project, target


def test_the_page_runs(installed):
    project, target = installed
    printed = run([sys.executable, "try_it.py"], project, PYTHONPATH=str(target))
    first, last = map(float, re.search(r"loss (\S+) -> (\S+)", printed).groups())
    assert last < first / 2
    assert sorted(path.name for path in (project / "trained").iterdir()) == ["config.json", "model.safetensors"]


def test_its_flags_are_on_the_help_page(installed):
    project, target = installed
    command = [sys.executable, "-m", "lerobot_ray.train", "--policy.type=tiny_mlp", "--help"]
    assert "--policy.hidden_size=64" in run(command, project, PYTHONPATH=str(target))


@pytest.mark.ray
@pytest.mark.slow
def test_its_training_command_runs(installed, tmp_path):
    project, target = installed
    (command,) = re.findall(r"python -m (lerobot_ray\.train .*tiny_mlp.*)", PAGE.read_text(encoding="utf-8"))
    root = make_dataset(tmp_path / "toy")
    short = {"--dataset.repo_id": "tests/toy", "--dataset.root": root, "--steps": 3, "--output_dir": tmp_path / "run"}
    words = [word for word in command.split() if word.split("=")[0] not in short]
    words += [f"{name}={value}" for name, value in short.items()]
    extra = ["--policy.device=cpu", "--policy.push_to_hub=false", "--batch_size=4", "--mlflow.enable=false"]
    run([sys.executable, "-m", *words, *extra], project, PYTHONPATH=str(target), RAY_AUTH_MODE="disabled")
    saved = tmp_path / "run" / "checkpoints" / "000003" / "pretrained_model"
    assert {"config.json", "model.safetensors", "policy_preprocessor.json"} <= {p.name for p in saved.iterdir()}
