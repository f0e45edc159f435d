"""Policies that an installed lerobot brings, trained here: its config classes, its networks, its processors.

A LeRobot config comes in as a subclass of itself that speaks this package's words where a run looks at it (presets as
our data classes, processors on request); the policy itself gets a plain one. Nothing of lerobot is imported before use.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lerobot_ray.config.optim import OptimizerConfig, SchedulerConfig
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import PolicyError, nearest
from lerobot_ray.core.layout import WEIGHTS_NAME
from lerobot_ray.core.types import Stats
from lerobot_ray.policies.config_file import policy_folder
from lerobot_ray.policies.weights import read_weights

logger = logging.getLogger(__name__)

_CHECKED_TENSORS = 16


def is_installed() -> bool:
    """Whether there is a lerobot to bridge to."""
    return importlib.util.find_spec("lerobot") is not None


def find_config_class(policy_type: str) -> type | None:
    """LeRobot's config class for this type, made to speak our words; None when LeRobot has no such type."""
    if not is_installed():
        return None
    try:
        theirs = _base_config().get_choice_class(policy_type)
    except KeyError:
        return None
    return _adapted(policy_type, theirs)


def policy_class(config_class: Any) -> Any:
    """LeRobot's policy class for a config class found by `find_config_class`."""
    from lerobot.policies.factory import get_policy_class

    return get_policy_class(config_class.get_choice_name(config_class))


def build_policy(
    config: Any, *, dataset_stats: Stats | None = None, dataset_meta: Any = None, device: str | None = None
) -> Any:
    """LeRobot's policy for a config found by `find_config_class`, on its device, with its pretrained weights if any."""
    plain = to_lerobot(config)
    plain.device = device or plain.device
    cls = policy_class(type(config))
    given = {"dataset_stats": dataset_stats, "dataset_meta": dataset_meta}
    if not config.pretrained_path:
        return cls(plain, **given).to(plain.device)
    path, revision = str(config.pretrained_path), config.pretrained_revision
    policy = cls.from_pretrained(path, config=plain, revision=revision, **given)
    _check_loaded(policy, policy_folder(path, revision=revision) / WEIGHTS_NAME)
    return policy.to(plain.device)


def build_processors(
    config: Any,
    *,
    dataset_stats: Stats | None = None,
    pretrained_path: str | Path | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """LeRobot's own (preprocessor, postprocessor) for such a config; `kwargs` are those of its factory (overrides)."""
    from lerobot.policies.factory import make_pre_post_processors

    return make_pre_post_processors(
        policy_cfg=to_lerobot(config),
        pretrained_path=None if pretrained_path is None else str(pretrained_path),
        pretrained_revision=revision,
        dataset_stats=dataset_stats,
        **kwargs,
    )


def to_lerobot(config: Any) -> Any:
    """A plain LeRobot config with the values of `config`, features and modes in LeRobot's own types."""
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

    def features(ours: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if ours is None:
            return None
        return {key: PolicyFeature(FeatureType(_value(f.type)), tuple(f.shape)) for key, f in ours.items()}

    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.init}
    values["input_features"], values["output_features"] = (
        features(config.input_features),
        features(config.output_features),
    )
    if "normalization_mapping" in values:
        modes = values["normalization_mapping"].items()
        values["normalization_mapping"] = {key: NormalizationMode(_value(mode)) for key, mode in modes}
    plain = config.lerobot_class(**values)
    for field in dataclasses.fields(config):
        if not field.init and hasattr(config, field.name):
            setattr(plain, field.name, getattr(config, field.name))
    return plain


@functools.cache
def _base_config() -> Any:
    from lerobot.configs.policies import PreTrainedConfig

    importlib.import_module("lerobot.policies")  # registers every type it brings
    return PreTrainedConfig


@functools.cache
def _adapted(policy_type: str, theirs: type) -> type:
    """A subclass of LeRobot's config class whose presets are our data classes. It counts as a `PolicyConfig`."""

    def get_optimizer_preset(self: Any) -> OptimizerConfig:
        return _our_preset(OptimizerConfig, theirs.get_optimizer_preset(self), policy_type)  # type: ignore[attr-defined]

    def get_scheduler_preset(self: Any) -> SchedulerConfig | None:
        preset = theirs.get_scheduler_preset(self)  # type: ignore[attr-defined]
        return None if preset is None else _our_preset(SchedulerConfig, preset, policy_type)

    def validate_features(self: Any) -> None:
        # LeRobot's checks look at its own enum by identity, and some add features (empty cameras) while checking.
        plain = to_lerobot(self)
        try:
            plain.validate_features()
        except (ValueError, NotImplementedError) as error:
            raise PolicyError(f"policy.type={policy_type}: {error}") from error
        self.input_features, self.output_features = plain.input_features, plain.output_features

    def make_processors(self: Any, stats: Stats | None) -> tuple[Any, Any]:
        return build_processors(self, dataset_stats=stats)

    adapted = type(
        theirs.__name__,
        (theirs,),
        {
            "__module__": __name__,
            "__doc__": theirs.__doc__,
            "is_lerobot": True,
            "lerobot_class": theirs,
            "type": property(lambda self: policy_type),
            "get_choice_name": classmethod(lambda cls, subclass: policy_type),
            "get_optimizer_preset": get_optimizer_preset,
            "get_scheduler_preset": get_scheduler_preset,
            "validate_features": validate_features,
            "make_processors": make_processors,
        },
    )
    PolicyConfig.register(adapted)
    return adapted


def _our_preset(kind: Any, preset: Any, policy_type: str) -> Any:
    known = kind.get_known_choices()
    if preset.type not in known:
        near = nearest(preset.type, known)
        raise PolicyError(
            f"policy.type={policy_type} is trained with {preset.type}, which this package does not have. Set "
            f"use_policy_training_preset=false and choose one" + (f", such as {near}." if near else ".")
        )
    ours = known[preset.type]
    names = {field.name for field in dataclasses.fields(ours)}
    return ours(**{f.name: getattr(preset, f.name) for f in dataclasses.fields(preset) if f.name in names})


def _check_loaded(policy: Any, path: Path) -> None:
    """PolicyError when no tensor of the file arrived: some LeRobot policies print a failure and keep random ones."""
    if not path.is_file():  # an adapter, or files under other names: LeRobot's own business
        return
    tensors, own = read_weights(path), policy.state_dict()
    pairs = [(tensor, own[key]) for name, tensor in tensors.items() for key in (name, f"model.{name}") if key in own]
    pairs = [(saved, loaded) for saved, loaded in pairs if saved.shape == loaded.shape and saved.is_floating_point()]
    for saved, loaded in pairs[:: max(1, len(pairs) // _CHECKED_TENSORS)]:
        if saved.numel() and torch.allclose(saved.float(), loaded.detach().cpu().float(), rtol=1e-2, atol=1e-3):
            return
    raise PolicyError(f"LeRobot did not load {path} into {type(policy).__name__}. Its own messages above say why.")


def _value(member: Any) -> Any:
    return getattr(member, "value", member)
