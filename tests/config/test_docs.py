"""docs/configuration.md says what the code does: its table is current and its examples run."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = [line.removeprefix("$ ") for line in text.splitlines()]
    return [shlex.split(line)[3:] for line in lines if line.startswith("python -m lerobot_ray.train")]


def test_the_table_of_flags_is_current():
    spec = importlib.util.spec_from_file_location("write_flags", ROOT / "docs" / "write_flags.py")
    write_flags = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_flags)
    assert PAGE.read_text(encoding="utf-8") == write_flags.page(), "run: .venv/bin/python docs/write_flags.py"


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(compile(example, str(PAGE), "exec"), {})
    assert (tmp_path / "saved" / "lerobot_ray.json").is_file()


def test_the_command_lines_are_good_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (yaml,) = blocks("yaml")
    (tmp_path / "act.yaml").write_text(yaml)
    found = [command for block in blocks("bash") for command in commands(block)]
    configs = [parse_train_config(command) for command in found]
    assert [config.steps for config in configs] == [20000, 20000]
    assert (configs[1].optimizer.lr, configs[1].optimizer.weight_decay, configs[1].seed) == (3e-5, 1e-4, 7)


def test_the_error_is_the_one_shown():
    (block,) = blocks("text")
    (command,) = commands(block)
    with pytest.raises(ConfigError) as error:
        parse_train_config(command)
    assert f"error: {error.value}" == block.splitlines()[1]
