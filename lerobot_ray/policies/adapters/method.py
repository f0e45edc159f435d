"""From `--peft.*`, or a saved `adapter_config.json`, to a config of the `peft` library."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.core.errors import ConfigError, PolicyError, nearest
from lerobot_ray.policies.adapters.targets import check_saved, checked_targets, default_targets

INIT_FIELDS = {"LORA": "init_lora_weights", "MISS": "init_weights"}
WITH_R = {"OFT": {"oft_block_size": 0}}
"""What a method wants to hear besides `r`: of the two, one follows from the other."""
REFUSED = {
    "ADALORA": "it moves ranks between layers by calls after every step, which the training loop does not make",
    "XLORA": "it mixes adapters that exist already",
}


def config_class(method: str) -> Any:
    """The class of `peft` for a method's name. ConfigError names the nearest one, or why it is not trained here."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PromptLearningConfig

    known = {str(getattr(kind, "value", kind)): found for kind, found in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    name = method.upper()
    if name not in known:
        near = nearest(name, known)
        raise ConfigError(
            f"peft.method_type={method} is not a method of the installed peft. "
            + (f"Did you mean {near}? " if near else "")
            + f"It has {', '.join(sorted(known))}."
        )
    if issubclass(known[name], PromptLearningConfig):
        raise ConfigError(
            f"peft.method_type={method} adds tokens to the prompt of a language model; a policy has no such prompt. "
            "Use LORA or another method that adapts layers."
        )
    if name in REFUSED:
        raise ConfigError(f"peft.method_type={method} is not trained here: {REFUSED[name]}. Use LORA.")
    return known[name]


def new_config(peft: PeftConfig, policy: nn.Module, *, base: str, revision: str | None) -> Any:
    """The config of a fresh adapter for `policy`. ConfigError for what the method or the policy does not have."""
    cls = config_class(peft.method_type)
    names = {field.name for field in dataclasses.fields(cls)}
    own_targets, own_saved = default_targets(policy)
    targets = peft.target_modules if peft.target_modules is not None else own_targets
    saved = peft.full_training_modules if peft.full_training_modules is not None else own_saved
    if targets is None:
        raise ConfigError(
            f"{type(policy).__name__} suggests no modules for an adapter. Name some: --peft.target_modules='[…]', a "
            "regular expression, or all-linear."
        )
    check_saved(policy, saved or ())
    values: dict[str, Any] = {
        "target_modules": checked_targets(policy, targets, saved=saved or ()),
        "modules_to_save": saved or None,
        "lora_alpha": peft.lora_alpha,
        INIT_FIELDS.get(peft.method_type.upper(), "init_type"): _init(peft.init_type),
    }
    values = {name: value for name, value in values.items() if value is not None}
    if absent := sorted(set(values) - names - ({"modules_to_save"} if peft.full_training_modules is None else set())):
        raise ConfigError(f"peft.method_type={peft.method_type} has no {', '.join(absent)}. Leave that out.")
    if "r" in names:
        values |= {"r": peft.r, **WITH_R.get(peft.method_type.upper(), {})}
    values = {name: value for name, value in values.items() if name in names}
    try:
        return cls(**values, base_model_name_or_path=base, revision=revision)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft.method_type={peft.method_type}: {error}") from error


def saved_config(settings: Mapping[str, Any], *, place: str) -> Any:
    """The config that an `adapter_config.json` describes, for loading its weights and going on with them."""
    cls = config_class(str(settings["peft_type"]))
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    beside = {"peft_type", "peft_version"}
    unknown = {key: value for key, value in settings.items() if key not in names | beside}
    if set_ones := sorted(key for key, value in unknown.items() if value not in (None, False, "", [], {})):
        raise PolicyError(
            f"the adapter in {place} uses {', '.join(set_ones)}, which the installed peft does not know (it was "
            f"written by peft {settings.get('peft_version', '?')}). Update peft."
        )
    values = {key: value for key, value in settings.items() if key in names and key not in beside}
    # Sets in memory, lists in the file: peft compares them.
    return cls(**{**values, "inference_mode": False})


def settings_of(config: Any, *, policy_class: type) -> dict[str, Any]:
    """What `adapter_config.json` says of this config."""
    import peft

    values = {key: _plain(value) for key, value in config.to_dict().items()}
    mapping = {"base_model_class": policy_class.__name__, "parent_library": policy_class.__module__}
    return {
        **values,
        "inference_mode": True,
        "auto_mapping": values.get("auto_mapping") or mapping,
        "peft_version": peft.__version__,
    }


def _init(value: str | None) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value) if value is not None else None


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return getattr(value, "value", value)
