"""docs/environments.md followed literally: its Python runs."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lerobot_ray import dataset
from lerobot_ray.config.env import EnvConfig
from lerobot_ray.core.errors import EnvError
from lerobot_ray.core.types import ACTION, OBS_STATE, FeatureType, PolicyFeature
from lerobot_ray.envs.hosts import spec_of
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.registry import build_policy
from lerobot_ray.processing.defaults import make_default_processors

PAGE = Path(__file__).parents[2] / "docs" / "environments.md"
OWN_ENV, FROM_PYTHON = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
TOP = "observation.images.top"


def save_policy(folder: Path) -> None:
    """An ACT that has learnt nothing."""
    config = ACTConfig(
        input_features={
            TOP: PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
            OBS_STATE: PolicyFeature(FeatureType.STATE, (2,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        dim_model=16,
        n_heads=2,
        dim_feedforward=16,
        n_encoder_layers=1,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    torch.manual_seed(0)
    build_policy(config).save_pretrained(folder)
    numbers = {"mean": np.zeros(2), "std": np.ones(2)}
    picture = {"mean": np.zeros((3, 1, 1)), "std": np.ones((3, 1, 1))}
    for pipeline in make_default_processors(config, {TOP: picture, OBS_STATE: numbers, ACTION: numbers}):
        pipeline.save_pretrained(folder)


def test_playing_from_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_policy(tmp_path / "policy")
    names: dict = {}
    exec(compile(FROM_PYTHON, PAGE.name, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ % of 10, 95 % interval \(.*\)", printed[0])
    assert printed[1] == "10 episodes recorded"
    assert dataset.main(["validate", "rollouts"]) == 0
    with av.open("videos/eval_episode_1.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == names["results"][1].length + 1


def test_an_environment_of_ones_own(monkeypatch):
    module = types.ModuleType("my_package_envs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        exec(compile(OWN_ENV, PAGE.name, "exec"), module.__dict__)
        config = EnvConfig.get_choice_class("pendulum")()
        assert config.builder == "my_package_envs:build_pendulum"
        if importlib.util.find_spec("pygame") is None:  # Pendulum draws with it
            with pytest.raises(EnvError, match=r"environment pendulum .*pygame"):
                spec_of(config)
            return
        spec = spec_of(config)
        assert spec.features[OBS_STATE].shape == (3,)
        assert spec.step_limit == 200
    finally:
        EnvConfig._choice_registry.pop("pendulum", None)
