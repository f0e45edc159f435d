"""README.md says what there is: its tree, its command line, its pictures and links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lerobot_ray.config.parse import parse_train_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_is_the_tree():
    tree = re.search(r"```text\n(.*?)```", README, flags=re.DOTALL).group(1)
    shown = {
        line.split("/")[0].strip() for line in tree.splitlines() if line.startswith("  ") and "/" in line.split("  ")[1]
    }
    there = {path.parent.name for path in (ROOT / "lerobot_ray").glob("*/__init__.py")}
    assert there == shown, "give each folder of lerobot_ray/ its line in README.md's tree"


def test_the_training_command_is_a_good_one():
    (command,) = [line for line in README.splitlines() if line.startswith("python -m lerobot_ray.train")]
    assert parse_train_config(shlex.split(command)[3:]).policy.type == "act"


def test_links_and_pictures_are_there():
    targets = re.findall(r"\]\(([^)#]+)", README)
    missing = [target for target in targets if not target.startswith("http") and not (ROOT / target).exists()]
    assert len(targets) > 5
    assert missing == []


def test_the_two_commands_are_in_the_makefile():
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(rules)
    assert set(re.findall(r"make (\w+)", README)) <= set(rules)
