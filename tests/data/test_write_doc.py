"""docs/write-and-check.md followed literally: its Python runs, and its commands print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.dataset import main

PAGE = Path(__file__).parents[2] / "docs" / "write-and-check.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.ray
def test_the_page_runs(tmp_path, monkeypatch, capsys, ray_cluster):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    snippets = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, PAGE.name, "exec"), names)
    assert capsys.readouterr().out == "5 episodes so far\n"

    commands = 0
    for block in re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, _, shown = part.partition("\n")
            words = shlex.split(command.split("  #")[0])[2:]
            if words[0] == "lerobot_ray.train":
                bad = (tmp_path / "bad.json").read_text()
                flags = [word.replace("$(cat bad.json)", bad) for word in words[1:] if word != "…"]
                assert parse_train_config([*flags, "--policy.type=act", "--policy.push_to_hub=false"])
                continue
            assert words[0] == "lerobot_ray.dataset"
            assert main(words[1:]) == 0
            printed = capsys.readouterr().out
            for line in shown.splitlines():
                assert line == "…" or line in printed.splitlines()
            commands += 1
    assert commands == 7
    assert (tmp_path / "reach.png").exists()
    assert (tmp_path / "reach/meta/stats.json.bak").exists()


def test_pictures_are_there():
    for target in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (PAGE.parent / target).stat().st_size < 150_000
