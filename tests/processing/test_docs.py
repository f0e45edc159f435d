"""The page on processors, followed literally: its Python blocks run in order in one namespace."""

import re
import shutil
from pathlib import Path

import torch

from lerobot_ray.processing import load_pipeline, step
from tests.processing.cases import GOLDENS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "processors.md"


class Policy:
    """In the place of the page's policy, which is another page's subject."""

    def select_action(self, batch):
        assert batch["observation.state"].shape == (1, 4)
        return torch.zeros(1, 4)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "_registered", dict(step._registered))
    folder = shutil.copytree(GOLDENS / "act", tmp_path / "policy")
    names = {"policy_folder": folder, "output_folder": tmp_path / "own", "policy": Policy(), "__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["command"].shape == (1, 4)
    assert load_pipeline(tmp_path / "own", "policy_preprocessor").step("my_lab_gripper_scale").factor == 1000.0
