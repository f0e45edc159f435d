from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lerobot_ray.config import schema
from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.help import help_text
from lerobot_ray.config.optim import OptimizerConfig, SchedulerConfig
from lerobot_ray.config.policy import NATIVE, PolicyConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.train import main

CHOICES = [
    *(("policy", PolicyConfig.get_choice_class(name)) for name in NATIVE),
    *(("env", kind) for kind in EnvConfig.get_known_choices().values()),
    *(("optimizer", kind) for kind in OptimizerConfig.get_known_choices().values()),
    *(("scheduler", kind) for kind in SchedulerConfig.get_known_choices().values()),
]


def settings(**chosen):
    return [setting for section in schema.sections(TrainConfig, chosen=chosen) for setting in section.settings]


@pytest.mark.parametrize(("section", "kind"), CHOICES, ids=lambda value: getattr(value, "__name__", value))
def test_every_setting_says_what_it_is_for(section, kind):
    silent = [setting.name for setting in settings(**{section: kind}) if not setting.doc]
    assert silent == [], "put a docstring under each field"


def test_every_section_says_what_it_is():
    assert [section.name for section in schema.sections(TrainConfig) if not section.doc] == []


def test_help_lists_every_setting_with_default_and_owner(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for line in (
        "  --dataset.repo_id (required)",
        "  --batch_size=8",
        "* --dataset.order=null",
        "+ --dataset.exclude_episodes=null",
        "* --ray.num_workers=null",
        "+ --ema.power=0.75",
        "  --optimizer.lr=<preset>",
        "  --policy.device=null",
    ):
        assert f"\n{line}\n" in text
    assert "--checkpoint_path" not in text
    assert "--reward_model" not in text
    assert "--policy.chunk_size" not in text
    assert max(map(len, text.splitlines())) <= 100
    for setting in settings():
        assert f"--{setting.name}" in text


def test_help_of_a_policy(capsys):
    assert main(["--policy.type=act", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\npolicy (type=act): " in text
    assert "\n  --policy.type=act\n" in text
    assert "\n  --policy.chunk_size=100\n      Actions predicted at once.\n" in text
    assert "--policy.horizon" not in text


def test_help_says_what_is_ignored(capsys):
    main(["-h"])
    assert "Accepted and ignored: decode actors live as long as the run." in " ".join(capsys.readouterr().out.split())


def test_a_wrong_flag_beside_help_is_an_error_where_it_decides_the_page(capsys):
    assert main(["--policy.path=nowhere/at/all", "--help"]) == 2
    assert capsys.readouterr().err.startswith("error: --policy.path=nowhere/at/all is neither")


def test_what_is_marked_as_lerobots_is_what_lerobot_writes():
    file = Path(__file__).parent / "lerobot_0_6_1" / "act" / "train_config.json"
    written = json.loads(file.read_text())
    plain = ("dataset", "eval", "wandb", "job")
    theirs = {key for key, value in written.items() if not isinstance(value, dict)} | {"rename_map"}
    theirs |= {f"{section}.{key}" for section in plain for key in written[section]}
    theirs |= {f"dataset.image_transforms.{key}" for key in written["dataset"]["image_transforms"]}
    theirs -= {
        "env",
        "reward_model",
        "scheduler",
        "peft",
        "sample_weighting",
        "checkpoint_path",
        "dataset.image_transforms",
    }
    marked = {s.name for s in settings() if s.origin == "lerobot" and s.name.split(".")[0] in (*plain, s.name)}
    assert marked == theirs


def test_help_text_of_any_config():
    @dataclasses.dataclass
    class Tiny:
        """A tiny thing."""

        size: int = 3

    assert "A tiny thing." in help_text(Tiny, usage="x", about="y")
