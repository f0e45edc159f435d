from __future__ import annotations

import math

import pytest

from lerobot_ray.config.text import read_yaml
from lerobot_ray.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("005000", "005000"),  # a step's tag, not an octal number
        ("no", "no"),  # mixed_precision: no
        ("on", "on"),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-3", -3),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        (".inf", math.inf),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ('{"a": [0.8, 1.2], "b": null}', {"a": [0.8, 1.2], "b": None}),
        ("{a.b: c}", {"a.b": "c"}),
    ],
)
def test_words(text, value):
    read = read_yaml(text, name="x")
    assert read == value
    assert type(read) is type(value)


def test_merge_keys_work():
    assert read_yaml("base: &b {x: 1}\nrun:\n  <<: *b\n  y: 2", name="x")["run"] == {"x": 1, "y": 2}


def test_bad_yaml_says_where():
    with pytest.raises(ConfigError, match=r"run.yaml, line 3, column 2: not valid YAML"):
        read_yaml("a: 1\nb: [1\nc: 2", name="run.yaml")


def test_yaml_builds_no_objects():
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        read_yaml("!!python/object/apply:os.system ['true']", name="run.yaml")
