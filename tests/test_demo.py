"""`make demo`, smaller: every command of it works on what the one before left."""

from __future__ import annotations

import json

import pytest

from lerobot_ray.demo import main


@pytest.mark.ray
@pytest.mark.slow
def test_the_whole_demo(tmp_path, capsys, ray_cluster):
    flags = ["--episodes=6", "--steps=4", "--pixels=32", "--eval-episodes=2"]
    assert main(["--dir", str(tmp_path), *flags]) == 0
    policies = json.loads((tmp_path / "evaluation" / "eval_info.json").read_text())["policies"]
    assert [(entry["name"], entry["step"]) for entry in policies] == [("untrained", None), ("step 4", 4)]
    assert "before training" in capsys.readouterr().out
    for name in ("preview.html", "run/report.html", "evaluation/evaluation.html"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert list(tmp_path.glob("evaluation/step_4/videos/*/*.mp4"))
