"""What every entry module makes of its words: an exit code, and one line for what is refused."""

from __future__ import annotations

import sys

from lerobot_ray.config.command_line import run_words
from lerobot_ray.core.errors import ConfigError


def refuses(words):
    raise ConfigError(f"not {words[0]}")


def is_interrupted(words):
    raise KeyboardInterrupt


def test_exit_codes_and_what_is_said(capsys, monkeypatch):
    def page(words):
        return f"help for {words}"

    assert run_words(["a"], len, help_page=page) == 1
    assert run_words(["a"], refuses, help_page=page) == 2
    assert run_words(["a"], is_interrupted, help_page=page) == 130
    assert run_words(["a"], is_interrupted, help_page=page, if_interrupted="Go on.") == 130
    assert capsys.readouterr().err == "error: not a\nerror: interrupted.\nerror: interrupted. Go on.\n"
    for word in ("--help", "-h"):
        assert run_words(["a", word], refuses, help_page=page) == 0
        assert capsys.readouterr().out == "help for ['a']\n"
    monkeypatch.setattr(sys, "argv", ["train", "b"])
    assert run_words(None, refuses, help_page=page) == 2
    assert capsys.readouterr().err == "error: not b\n"
