"""The command line of a sweep: its own flags, and those of its trials."""

from __future__ import annotations

import pytest

from lerobot_ray import tune
from tests.sweeps.sweeps import LIGHT, write_sweep


def test_own_flags_are_told_from_the_trials():
    words = ["--sweep", "a.yaml", "--steps=10", "--resume", "--sweep_seeds=3", "--policy.type", "act", "--push_best"]
    found = tune.read_arguments(words)
    assert found.own == {"sweep": "a.yaml", "resume": "true", "sweep_seeds": "3", "push_best": "true"}
    assert found.words == ["--steps=10", "--policy.type", "act"]


def test_flags_take_the_files_place(tmp_path):
    file = write_sweep(tmp_path, num_trials=4)
    plan = tune.settled(tune.read_arguments([f"--sweep={file}", "--num_trials=9", "--max_concurrent=2", *LIGHT]))
    assert (plan.sweep.num_trials, plan.sweep.max_concurrent) == (9, 2)
    assert "sweeps" in plan.folder.parts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--sweep=<file> is missing"),
        (["--sweep=/nonexistent.yaml", *LIGHT], "cannot be read"),
        (["--sweep={file}", "--resume", *LIGHT], "--resume goes on with the sweep in --output_dir"),
        (["--sweep={file}", "--num_trials=few", *LIGHT], "expected a whole number"),
        (["--sweep={file}", "--sweep_seeds=0", *LIGHT], "--sweep_seeds=0 must be at least 1"),
        (["--sweep={file}", "--stepz=3", *LIGHT], "Did you mean --steps"),
        (["--sweep={file}", "--push_best", *LIGHT], "--push_best needs a repository"),
    ],
)
def test_one_line_and_exit_code_2(tmp_path, capsys, words, message):
    file = write_sweep(tmp_path)
    assert tune.main([word.replace("{file}", str(file)) for word in words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
