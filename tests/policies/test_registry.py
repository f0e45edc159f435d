"""From a type to a policy: what is found where, and what a miss says."""

import subprocess
import sys
import textwrap

import pytest
import torch

from lerobot_ray.config.policy import IN_LEROBOT, NATIVE, PolicyConfig
from lerobot_ray.core.errors import PolicyError
from lerobot_ray.policies.registry import build_policy, known_policies, policy_class, policy_class_of
from tests.policies.build import build, config_of
from tests.policies.cases import CASES


@pytest.mark.parametrize("name", NATIVE)
def test_native_policies_by_name(name):
    cls = policy_class(name)
    assert cls.name == name
    assert PolicyConfig.get_choice_class(name) is cls.config_class
    assert cls.__module__.startswith(f"lerobot_ray.policies.{name}.")


def test_everything_known_is_listed():
    assert {*NATIVE, *IN_LEROBOT} <= set(known_policies())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("atc", r"atc is not a known kind of policy\. Did you mean act\?"),
        ("smolvla", r"needs lerobot, which brings it: pip install 'lerobot-ray\[lerobot\]'"),
        ("smolvl", r"Did you mean smolvla\? It needs lerobot"),
        ("zzz", r"Known: act, diffusion.*lerobot_policy_"),
    ],
)
def test_a_miss_says_what_to_do(name, words):
    with pytest.raises(PolicyError, match=words):
        policy_class(name)


def test_listing_and_naming_import_no_torch():
    code = """
        import sys
        from lerobot_ray.config.policy import PolicyConfig
        from lerobot_ray.policies.registry import known_policies
        known_policies(), PolicyConfig.get_choice_class("act")(), PolicyConfig.get_choice_class("diffusion")()
        print([name for name in ("torch", "lerobot", "safetensors", "huggingface_hub") if name in sys.modules])
    """
    printed = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True)
    assert printed.strip() == "[]"


def test_fresh_and_pretrained(tmp_path):
    policy = build(CASES["act_state_only"])
    policy.save_pretrained(tmp_path)
    again = build_policy(config_of(CASES["act_state_only"], pretrained_path=str(tmp_path)), dataset_stats={})
    assert torch.equal(again.model.action_head.weight, policy.model.action_head.weight)
    assert again.config.pretrained_path == str(tmp_path)


def test_a_device_can_be_given():
    policy = build_policy(config_of(CASES["act_state_only"]), device="meta")
    assert {parameter.device.type for parameter in policy.parameters()} == {"meta"}


def test_features_are_checked_before_anything_is_built():
    config = config_of(CASES["act_state_only"])
    config.output_features = {}
    with pytest.raises(PolicyError, match="needs an output named action"):
        build_policy(config)


PLUGIN = {
    "lerobot_policy_pendulum/__init__.py": "from lerobot_policy_pendulum.configuration_pendulum import PendulumConfig",
    "lerobot_policy_pendulum/configuration_pendulum.py": """
        from dataclasses import dataclass
        from lerobot_ray.policies.act.config import ACTConfig
        from lerobot_ray.config.policy import PolicyConfig

        @PolicyConfig.register_subclass("pendulum")
        @dataclass
        class PendulumConfig(ACTConfig):
            policy_path = None
    """,
    "lerobot_policy_pendulum/modeling_pendulum.py": """
        from lerobot_ray.policies.act.policy import ACTPolicy
        from lerobot_policy_pendulum.configuration_pendulum import PendulumConfig

        class PendulumPolicy(ACTPolicy):
            config_class, name = PendulumConfig, "pendulum"
    """,
    "lerobot_policy_pendulum-1.0.dist-info/METADATA": "Name: lerobot_policy_pendulum\nVersion: 1.0\n",
}


def test_an_installed_plugin_is_found_by_its_name(tmp_path, monkeypatch):
    for name, text in PLUGIN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        config_class = PolicyConfig.get_choice_class("pendulum")
        assert policy_class("pendulum").name == "pendulum"
        case = CASES["act_state_only"]
        like = config_of(case)
        features = {"input_features": like.input_features, "output_features": like.output_features}
        policy = build_policy(config_class(device="cpu", **case.options, **features))
        assert policy(case.batch(0))[0].isfinite()
    finally:
        PolicyConfig._choice_registry.pop("pendulum", None)


def test_a_config_whose_policy_cannot_be_imported_is_named():
    class LostConfig(PolicyConfig):
        policy_path = "lerobot_ray.policies.nowhere:LostPolicy"

    with pytest.raises(PolicyError, match=r"LostConfig leads to lerobot_ray\.policies\.nowhere:LostPolicy"):
        policy_class_of(LostConfig)
