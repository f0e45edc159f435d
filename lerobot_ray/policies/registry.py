"""From a policy's type to its class, and from its config to a policy. Nothing is imported before it is asked for.

A config class says which policy it describes in a class variable `policy_path`, an import path `module:Class`. Types
come from this package, from entry points in the group `lerobot_ray.policies`, from an installed lerobot, and from
installed packages named lerobot_policy_*; `PolicyConfig.get_choice_class` finds them in that order.
"""

from __future__ import annotations

import importlib
from typing import Any

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import ConfigError, PolicyError
from lerobot_ray.core.types import Stats


def known_policies() -> list[str]:
    """Every type known by name, whether or not what it needs is installed."""
    return PolicyConfig.names()


def policy_class(policy_type: str) -> Any:
    """The class of policies of this type. PolicyError names the nearest known type and what to install for it."""
    try:
        return policy_class_of(PolicyConfig.get_choice_class(policy_type))
    except ConfigError as error:
        raise PolicyError(str(error)) from error


def policy_class_of(config_class: Any) -> Any:
    """The policy class that a config class describes."""
    if getattr(config_class, "is_lerobot", False):
        from lerobot_ray.policies import lerobot_bridge

        return lerobot_bridge.policy_class(config_class)
    path = getattr(config_class, "policy_path", None)
    if path is None:
        path = _lerobot_convention(config_class)
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
        return getattr(module, class_name)
    except (ImportError, AttributeError) as error:
        raise PolicyError(
            f"{config_class.__qualname__} leads to {path}, which cannot be imported ({error}). Set its class variable "
            f"policy_path to 'module:Class' of the policy, and install what that module needs."
        ) from error


def build_policy(
    config: Any, *, dataset_stats: Stats | None = None, dataset_meta: Any = None, device: str | None = None
) -> Any:
    """The policy `config` describes: fresh, or with the weights of `config.pretrained_path`.

    Features must be filled in. `device` replaces `config.device`. Fresh weights come from torch's generator; weights
    that are loaded into a native policy must fit key by key. With `config.use_peft` the path is an adapter's, and what
    comes back is its base with the adapter on it.
    """
    from lerobot_ray.policies.protocol import PretrainedPolicy, resolve_device

    if config.use_peft:
        from lerobot_ray.policies.adapters.load import load_adapted

        return load_adapted(config, dataset_stats=dataset_stats, dataset_meta=dataset_meta, device=device)
    if getattr(config, "is_lerobot", False):
        from lerobot_ray.policies import lerobot_bridge

        return lerobot_bridge.build_policy(
            config, dataset_stats=dataset_stats, dataset_meta=dataset_meta, device=device
        )
    config.validate_features()
    cls = policy_class_of(type(config))
    given = {"dataset_stats": dataset_stats, "dataset_meta": dataset_meta}
    if config.pretrained_path:
        strict = {"strict": True} if issubclass(cls, PretrainedPolicy) else {}
        policy = cls.from_pretrained(
            config.pretrained_path, config=config, revision=config.pretrained_revision, **strict, **given
        )
    else:
        policy = cls(config, **given)
    return policy.to(resolve_device(device or config.device))


def _lerobot_convention(config_class: type) -> str:
    """LeRobot's plugins put XConfig in …configuration_x and XPolicy in …modeling_x."""
    module = config_class.__module__.replace("configuration_", "modeling_")
    return f"{module}:{config_class.__name__.removesuffix('Config')}Policy"
