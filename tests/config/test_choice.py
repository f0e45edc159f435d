"""How a kind is found by name: built in, registered, through an entry point, a bridge, or an installed plugin."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from lerobot_ray.config.choice import LazyChoice
from lerobot_ray.config.policy import IN_LEROBOT, NATIVE, PolicyConfig
from lerobot_ray.core.errors import ConfigError


@pytest.fixture
def choice():
    """A choice of its own for each test: what is registered in it is forgotten with it."""

    @dataclass
    class Shape(LazyChoice):
        section: ClassVar[str] = "shape"
        builtin: ClassVar = {"round": "shapes_builtin:Round"}
        elsewhere: ClassVar = {"oval": "the package ovals: pip install ovals"}
        entry_point_group: ClassVar[str] = "lerobot_ray.test_shapes"
        plugin_prefix: ClassVar[str] = "lerobot_shape_"
        bridge: ClassVar[str] = "shapes_bridge:find"
        _choice_registry: ClassVar[dict[str, Any]] = {}

    return Shape


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution with one module, as pip would leave it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def do(module: str, source: str = "", *, distribution: str | None = None, entry_points: str = "") -> None:
        (tmp_path / f"{module}.py").write_text(source)
        made.append(module)
        if distribution:
            info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(entry_points)

    yield do
    for module in made:
        sys.modules.pop(module, None)


CLASS = "from dataclasses import dataclass\n\n@dataclass\nclass Round:\n    radius: int = 1\n"


def test_built_in_kinds_are_imported_when_asked_for(choice, install):
    install("shapes_builtin", CLASS)
    assert "round" in choice.names()
    assert "shapes_builtin" not in sys.modules
    assert choice.get_choice_class("round")().radius == 1
    assert choice.get_choice_name(choice.get_choice_class("round")) == "round"


def test_a_registered_class_wins_over_the_built_in_one(choice):
    @choice.register_subclass("round")
    class Mine:
        pass

    assert choice.get_choice_class("round") is Mine


def test_entry_point(choice, install):
    install(
        "my_shapes", CLASS, distribution="my-shapes", entry_points="[lerobot_ray.test_shapes]\nhex = my_shapes:Round\n"
    )
    assert "hex" in choice.names()
    assert choice.get_choice_class("hex").__module__ == "my_shapes"


def test_plugin_distribution_is_imported_on_a_miss_only(choice, install):
    registered = CLASS.replace("@dataclass", "@the_choice.Shape.register_subclass('hex')\n@dataclass")
    source = f"import the_choice\n{registered}"
    install("lerobot_shape_hex", source, distribution="lerobot-shape-hex")
    install("shapes_builtin", CLASS)
    sys.modules["the_choice"] = type("the_choice", (), {"Shape": choice})  # type: ignore[assignment]
    try:
        choice.get_choice_class("round")
        assert "lerobot_shape_hex" not in sys.modules
        assert choice.get_choice_class("hex")().radius == 1
    finally:
        del sys.modules["the_choice"]


def test_a_plugin_that_fails_is_named(choice, install):
    install("lerobot_shape_bad", "import no_such_module_at_all", distribution="lerobot-shape-bad")
    with pytest.raises(ConfigError, match=r"plugin lerobot_shape_bad failed to import: ModuleNotFoundError: .*no_such"):
        choice.get_choice_class("hex")


def test_bridge(choice, install):
    install("shapes_bridge", CLASS + "\ndef find(name):\n    return Round if name == 'square' else None\n")
    assert choice.get_choice_class("square").__name__ == "Round"
    with pytest.raises(ConfigError):
        choice.get_choice_class("squarish")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rond", "shape.type=rond is not a known kind of shape. Did you mean round?"),
        ("oval", "shape.type=oval needs the package ovals: pip install ovals."),
        ("oval1", "Did you mean oval? It needs the package ovals: pip install ovals."),
        ("zzz", "Known: oval, round. Others come with an installed package named lerobot_shape_… or an entry point in"),
    ],
)
def test_a_miss_says_what_to_do(choice, name, message):
    with pytest.raises(ConfigError) as error:
        choice.get_choice_class(name)
    assert message in str(error.value)


def test_policy_types():
    assert set(NATIVE) | set(IN_LEROBOT) <= set(PolicyConfig.names())
    for name in NATIVE:
        assert PolicyConfig.get_choice_name(PolicyConfig.get_choice_class(name)) == name
    with pytest.raises(ConfigError, match=r"Did you mean diffusion\?"):
        PolicyConfig.get_choice_class("difusion")
