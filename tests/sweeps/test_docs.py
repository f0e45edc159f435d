"""The sweep files that come along, the README's example and the ones on the page are good ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lerobot_ray.sweeps.plan import settle_sweep
from lerobot_ray.sweeps.space import read_space
from lerobot_ray.tune import read_arguments

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs" / "sweeps").glob("*.yaml"))


def flags_in(text: str) -> list[str]:
    """The training flags of the first `tune` command in a text, comment signs and line ends taken out."""
    command = re.search(r"python -m lerobot_ray\.tune (.*?[^\\])\n", re.sub(r"\n# +", "\n", text), flags=re.DOTALL)
    return read_arguments(shlex.split(command.group(1).replace("\\\n", " "))).words


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_fit_the_command_they_name(file, tmp_path):
    text = file.read_text()
    if "tune" in text:
        assert settle_sweep(file, flags_in(text), folder=tmp_path / "out").sweep.num_trials
    assert len(FILES) >= 4


def test_the_readmes_example_fits(tmp_path):
    words = flags_in((ROOT / "README.md").read_text())
    plan = settle_sweep(ROOT / "docs" / "sweeps" / "reach.yaml", words, folder=tmp_path / "out")
    assert plan.steps == 60


def test_what_the_page_shows_is_understood(tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)]
    whole = [block for block in blocks if "metric" in block]
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(whole[0]))
    assert settle_sweep(file, flags_in(page), folder=tmp_path / "out").sweep.scheduler.type == "asha"
    for block in blocks:
        assert read_space(block["parameters"], file="docs/sweeps.md")
