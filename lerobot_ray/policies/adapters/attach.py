"""An adapter on a policy. The policy stays the object it was: layers in it are replaced, its base is frozen.

So the loop, DDP, FSDP2 and evaluation know nothing of adapters. What does, asks `adapter_of(policy)`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.core.errors import ConfigError, PolicyError
from lerobot_ray.policies.adapters.method import new_config, saved_config, settings_of
from lerobot_ray.policies.weights import read_weights

_ATTRIBUTE = "_adapter"
_NAME = "default"
_SHOWN = 6
_QUANTISERS = ("bitsandbytes", "torchao", "gptqmodel", "awq", "hqq", "eetq", "aqlm", "quanto", "optimum")


class Adapter:
    """What is trained on a frozen policy."""

    def __init__(self, model: Any, config: Any, policy_class: type) -> None:
        self.model = model
        """The `peft` model around the policy."""
        self.settings = settings_of(config, policy_class=policy_class)
        """The contents of `adapter_config.json`."""

    def weights(self) -> dict[str, Tensor]:
        """The live tensors that a file of the adapter holds, by their names in it; in parts under sharding."""
        from peft import get_peft_model_state_dict

        state = self.model.state_dict(keep_vars=True)
        # What peft adds for embeddings it would look up on the Hub; they are in the base.
        return get_peft_model_state_dict(self.model, state, adapter_name=_NAME, save_embedding_layers=False)


def adapter_of(policy: nn.Module) -> Adapter | None:
    """The policy's adapter, if it has one."""
    return getattr(policy, _ATTRIBUTE, None)


def attach_new(policy: nn.Module, peft: PeftConfig, *, base: str, revision: str | None = None) -> Adapter:
    """Freeze `policy`, which came from `base`, and put a fresh adapter on it. ConfigError for what does not fit."""
    config = new_config(peft, policy, base=base, revision=revision)
    return _attach(policy, config, what=f"peft.method_type={peft.method_type}")


def attach_saved(policy: nn.Module, settings: Mapping[str, Any], *, place: str) -> Adapter:
    """Freeze `policy` and put an adapter as in the `adapter_config.json` of `place` on it; weights are not loaded."""
    return _attach(policy, saved_config(settings, place=place), what=f"the adapter in {place}")


def load_adapter_weights(policy: nn.Module, path: Path) -> None:
    """Copies the file into the policy's adapter. Keys or shapes that differ are a PolicyError that names them."""
    adapter = adapter_of(policy)
    assert adapter is not None
    own, tensors = adapter.weights(), read_weights(path)
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in the policy"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    ]
    problems = {
        "of another shape": shapes,
        "missing": sorted(own.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - own.keys()),
    }
    if found := [f"{len(some)} {what}: {', '.join(some[:_SHOWN])}" for what, some in problems.items() if some]:
        raise PolicyError(
            f"{path} does not fit the adapter that the adapter_config.json beside it describes: {'; '.join(found)}. "
            "Save or download it again."
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def without_adapter(policy: nn.Module) -> nn.Module:
    """The policy with the adapter added to its weights; `peft` raises what it cannot merge."""
    adapter = adapter_of(policy)
    assert adapter is not None
    merged = adapter.model.merge_and_unload(safe_merge=True)
    policy.__dict__.pop(_ATTRIBUTE)
    return merged


def is_quantised(policy: nn.Module) -> bool:
    """Whether some of its weights are kept in fewer bits, so that adding to them would round the sum."""
    return any(not parameter.is_floating_point() for parameter in policy.parameters()) or any(
        type(part).__module__.partition(".")[0] in _QUANTISERS for part in (*policy.modules(), *policy.parameters())
    )


def _attach(policy: nn.Module, config: Any, *, what: str) -> Adapter:
    from peft import get_peft_model

    if adapter_of(policy) is not None:
        raise PolicyError(f"{type(policy).__name__} has an adapter already. Merge it into its base first.")
    policy_class = type(policy)
    policy.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            # peft looks for the base's name on the module, which is not where a policy keeps it
            warnings.filterwarnings("ignore", message=".*base_model_name_or_path.*")
            model = _named(policy, config, lambda: get_peft_model(policy, config, adapter_name=_NAME))
    except (ValueError, TypeError, AttributeError, NotImplementedError, ImportError, RuntimeError) as error:
        raise ConfigError(f"{what} does not go on {policy_class.__name__}: {error}") from error
    adapter = Adapter(model, config, policy_class)
    _check(policy, adapter, what=what)
    _keep_statistics(policy)
    setattr(policy, _ATTRIBUTE, adapter)
    return adapter


def _named(policy: nn.Module, config: Any, call: Any) -> Any:
    """`call()` while the policy says what peft shall record as its base."""
    policy.__dict__["name_or_path"] = config.base_model_name_or_path
    try:
        return call()
    finally:
        policy.__dict__.pop("name_or_path", None)


def _check(policy: nn.Module, adapter: Adapter, *, what: str) -> None:
    """ConfigError unless what is trained is what a file of the adapter holds, tensor for tensor."""
    trained = {id(parameter): name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    weights = adapter.weights()
    saved = {id(tensor) for tensor in weights.values()}
    live = {id(tensor) for tensor in adapter.model.state_dict(keep_vars=True).values()}
    if not trained:
        raise ConfigError(f"{what} leaves nothing to train. Name other target modules.")
    if lost := [name for number, name in trained.items() if number not in saved]:
        raise ConfigError(f"{what} trains {lost[0]}, which peft does not save: it could not be loaded again.")
    if made := [name for name, tensor in weights.items() if id(tensor) not in live]:
        raise ConfigError(
            f"{what} saves {made[0]}, which is computed when it is saved: a run could not be resumed from it exactly."
        )


def _keep_statistics(policy: nn.Module) -> None:
    """Batch norms of the frozen base keep to their statistics: training would move them, and no adapter has them."""
    for module in policy.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()
            module.train = functools.partial(_stay, module)  # type: ignore[method-assign,assignment]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
