from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from lerobot_ray.config.decode import decode, expected
from lerobot_ray.config.encode import encode
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.text import Text
from lerobot_ray.core.errors import ConfigError


class Colour(str, Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    x: int = 1
    y: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    table: dict[str, Inner] = field(default_factory=dict)
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[int, ...] = ()
    anything: Any = None
    colour: Colour = Colour.RED
    path: Path | None = None
    switch: bool = False
    mode: Literal["no", "bf16"] = "no"
    resume: bool | Literal["auto"] = False
    targets: list[str] | str | None = None
    count: int | None = None
    made: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (int, 3, 3),
        (int, 3.0, 3),
        (int, Text("1e5"), 100_000),
        (float, 3, 3.0),
        (float, Text("1e-4"), 1e-4),
        (bool, True, True),
        (bool, "yes", True),
        (bool, Text("off"), False),
        (str, "a", "a"),
        (str, 12, "12"),
        (str, Text("005000"), "005000"),
        (str, Text("1.10"), "1.10"),
        (str, Text("a: b"), "a: b"),
        (str, Text("'quoted'"), "quoted"),
        (str | None, Text("null"), None),
        (str | None, Text(""), None),
        (str, Text("'null'"), "null"),
        (int | None, Text("auto"), None),
        (bool | None, "auto", None),
        (list[int], Text("[0,1]"), [0, 1]),
        (list[str] | str, Text("q_proj"), "q_proj"),
        (list[str] | str, Text(r".*\.(q|v)_proj"), r".*\.(q|v)_proj"),
        (list[str] | str, Text("[q, v]"), ["q", "v"]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[float, float], [0.9, 1], (0.9, 1.0)),
        (dict[str, float], {"CPU": 1}, {"CPU": 1.0}),
        (
            dict[str, str],
            Text("{observation.images.top: observation.image}"),
            {"observation.images.top": "observation.image"},
        ),
        (Literal["no", "bf16"], Text("no"), "no"),
        (bool | Literal["auto"], Text("auto"), "auto"),
        (bool | Literal["auto"], Text("true"), True),
        (Path | None, Text("out/1"), Path("out/1")),
        (Colour, "red", Colour.RED),
        (Colour, "RED", Colour.RED),
        (Any, Text("[1, a]"), [1, "a"]),
    ],
)
def test_values(kind, raw, value):
    decoded = decode(kind, raw)
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (int, "eight", "expected a whole number, got 'eight'."),
        (int, True, "expected a whole number, got True."),
        (int, 2.5, "expected a whole number, got 2.5."),
        (int, None, "expected a whole number, got null."),
        (float, "x", "expected a number, got 'x'."),
        (float, float("nan"), None),
        (bool, 1, "expected true or false, got 1."),
        (str, ["a"], "expected text, got ['a']."),
        (list[int], Text("3"), "expected a list of whole numbers, got 3."),
        (list[int], [1, "a"], "expected a whole number, got 'a'."),
        (tuple[int, int], [1], "expected a list of 2 values, got [1]."),
        (Literal["frames", "shards"], "shard", "expected one of frames, shards, got 'shard'. Did you mean shards?"),
        (Literal[1, 2], True, "expected one of 1, 2, got True."),
        (Colour, "blue", "expected one of red, got 'blue'."),
        (bool | Literal["auto"], "sometimes", "expected true or false or auto, got 'sometimes'."),
        (dict[str, int], [1], "expected a mapping, got [1]."),
        (Inner, 3, "expected a mapping, got 3."),
    ],
)
def test_wrong_values(kind, raw, message):
    if message is None:
        assert decode(kind, raw) != decode(kind, raw)  # NaN is a number
        return
    with pytest.raises(ConfigError) as error:
        decode(kind, raw, path=("a", "b"))
    assert str(error.value).endswith(message)
    assert str(error.value).startswith("a.b")


def test_a_section_and_its_defaults():
    outer = decode(Outer, {"name": "n", "inner": {"x": 2}, "table": {"t": {"y": 1}}, "pair": [3, 4], "made": 7})
    assert (outer.inner, outer.table, outer.pair, outer.made) == (Inner(2), {"t": Inner(1, 1.0)}, (3, 4.0), 7)
    assert outer.mode == "no"


def test_encode_undoes_decode():
    outer = decode(Outer, {"name": "n", "table": {"t": {"y": 1}}, "path": "a/b", "many": [1, 2], "resume": "auto"})
    assert decode(Outer, encode(outer)) == outer
    assert encode(outer)["colour"] == "red"
    assert encode(outer)["path"] == "a/b"
    assert encode(outer)["many"] == [1, 2]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "n", "iner": {}}, "run.yaml: iner: there is no such setting. Did you mean inner?"),
        ({"name": "n", "inner": {"z": 1}}, "run.yaml: inner.z: there is no such setting."),
        (
            {"name": "n", "table": {"t": {"xx": 1}}},
            "run.yaml: table.t.xx: there is no such setting. Did you mean table.t.x?",
        ),
        ({}, "run.yaml: name is missing."),
        ({"name": 1.1}, "run.yaml: name: expected text, got 1.1. Put it in quotes."),
    ],
)
def test_errors_name_file_and_key(raw, message):
    with pytest.raises(ConfigError) as error:
        decode(Outer, raw, origin=Origin(file="run.yaml"))
    assert str(error.value).startswith(message)


def test_errors_name_the_flag_as_typed():
    flags = {("inner", "x"): "many"}
    with pytest.raises(ConfigError, match=r"^--inner.x=many: expected a whole number, got 'many'.$"):
        decode(Outer, {"name": "n", "inner": {"x": Text("many")}}, origin=Origin(file="run.yaml", flags=flags))


def test_long_flags_are_cut_in_messages():
    text = "[" + "1," * 200 + "x]"
    with pytest.raises(ConfigError) as error:
        decode(list[int], Text(text), origin=Origin(flags={("episodes",): text}), path=("episodes",))
    assert len(str(error.value)) < 150


def test_a_strangers_check_becomes_a_config_error():
    @dataclass
    class Theirs:
        x: int = 1

        def __post_init__(self):
            raise NotImplementedError("not for you")

    with pytest.raises(ConfigError, match=r"^policy: not for you$"):
        decode(Theirs, {}, path=("policy",))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "a whole number or null"),
        (list[str] | str | None, "a list of texts or text or null"),
        (dict[str, float], "a mapping"),
        (Any, "any value"),
        (Literal["a", "b"] | None, "one of a, b or null"),
    ],
)
def test_expected_words(kind, words):
    assert expected(kind) == words
