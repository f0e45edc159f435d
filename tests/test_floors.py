"""Imports go down only. This is the picture of the floors; docs/architecture.md tells it in words."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lerobot_ray"
FLOORS = [
    ["core"],
    ["config"],
    ["data", "policies", "processing"],
    ["checkpoint"],
    ["hub", "tracking", "envs"],
    ["engine", "report_page", "cluster_files"],
    ["on_ray"],
    ["sweeps", "jobs"],
    ["entry modules"],
]
WITH_RAY = ("on_ray", "sweeps")
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else "entry modules"


def imported_names(path: Path) -> list[str]:
    """Dotted names of everything a module imports anywhere in it, inside functions and for types too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(PACKAGE.parent).parts
            base = ".".join(parents[: len(parents) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def imported_folders(path: Path) -> list[str]:
    inside = [name.split(".")[1:] for name in imported_names(path) if name.split(".")[0] == "lerobot_ray"]
    first = [parts[0] for parts in inside if parts]
    return [part if part in FLOOR else "entry modules" for part in first if part != "__version__"]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path):
    here = folder_of(path)
    assert here in FLOOR, f"{path}: {here} is on no floor. Put it into FLOORS here and into docs/architecture.md."
    wrong = [name for name in imported_folders(path) if name != here and FLOOR[name] >= FLOOR[here]]
    assert not wrong, f"{path} imports {wrong[0]}, which is not below {here}. Take what you need as an argument."


@pytest.mark.parametrize("path", [path for path in MODULES if folder_of(path) not in WITH_RAY], ids=name_of)
def test_only_two_folders_import_ray(path):
    wrong = [name for name in imported_names(path) if name.split(".")[0] == "ray"]
    assert not wrong, (
        f"{name_of(path)} imports {wrong[0]}. Ray belongs in {' and '.join(WITH_RAY)}; take a callable as an argument."
    )


def test_entry_modules_are_nobodys_parts():
    entries = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    wrong = [
        (name_of(path), name)
        for path in MODULES
        for name in imported_names(path)
        if name.split(".")[0] == "lerobot_ray" and name.split(".")[1] in entries
    ]
    assert not wrong, f"{wrong[0][0]} imports {wrong[0][1]}. Move what it needs out of the entry module."


def test_the_reader_of_imports_sees_them_all(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "lerobot_ray")
    module = tmp_path / "lerobot_ray" / "data" / "video.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import ray.data\nfrom lerobot_ray import engine\nfrom ..config.train import TrainConfig\nfrom . import cache\n"
        "def f():\n    import lerobot_ray.on_ray.host\n"
    )
    assert imported_folders(module) == ["engine", "config", "data", "on_ray"]
    assert "ray.data" in imported_names(module)
