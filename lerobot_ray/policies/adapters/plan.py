"""What adapter a run trains, on which base, and where it begins: settled on the driver, built on every worker."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.core.errors import CheckpointError, ConfigError
from lerobot_ray.core.layout import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME
from lerobot_ray.policies.adapters.attach import attach_new, attach_saved, load_adapter_weights
from lerobot_ray.policies.adapters.files import adapter_file, base_of, holds_adapter, pinned, read_settings
from lerobot_ray.policies.registry import build_policy, policy_class_of


@dataclass(frozen=True, kw_only=True)
class AdapterPlan:
    """Either `peft`, for a fresh adapter, or `settings`, of one that was saved. Picklable."""

    base: str
    """Folder or repository of the frozen policy."""
    base_revision: str | None = None
    peft: PeftConfig | None = None
    settings: Mapping[str, Any] | None = None
    place: str = ""
    """Where the settings were read."""
    weights: str | None = None
    """The saved weights to begin with; None where they are fresh, or come with a checkpoint."""

    def attach(self, policy: nn.Module) -> None:
        """Freeze the base and put the adapter on it."""
        if self.settings is not None:
            attach_saved(policy, self.settings, place=self.place)
        elif self.peft is not None:
            attach_new(policy, self.peft, base=self.base, revision=self.base_revision)


@dataclass(frozen=True, kw_only=True)
class AdapterSize:
    """Parameters."""

    trained: int
    total: int


def plan_adapter(policy: Any, peft: PeftConfig | None, *, checkpoint: Path | None = None) -> AdapterPlan | None:
    """The adapter of a run of this policy config; None: the whole policy is trained.

    `checkpoint` is the `pretrained_model` folder that a resumed run continues. ConfigError or CheckpointError when the
    flags and what is there do not go together.
    """
    path, revision = policy.pretrained_path, policy.pretrained_revision
    is_wanted = peft is not None or policy.use_peft
    if checkpoint is not None:
        return _plan_of_checkpoint(checkpoint, peft, instead=path) if _fits(checkpoint, is_wanted) else None
    if not is_wanted:
        return None
    if policy.use_peft and holds_adapter(path, revision=revision):
        if peft is not None:
            raise ConfigError(
                f"{path} holds an adapter already, and peft.* describes a new one. Leave out peft.* to train that one "
                "further, or merge it into its base first (docs/adapters.md) to put a new one on."
            )
        settings = read_settings(path, revision=revision)
        return AdapterPlan(
            base=base_of(settings, place=path),
            base_revision=settings.get("revision"),
            settings=settings,
            place=str(path),
            weights=str(adapter_file(path, ADAPTER_WEIGHTS_NAME, revision=revision)),
        )
    if peft is None:
        raise ConfigError(
            f"policy.use_peft says that {path} holds an adapter, and there is no {ADAPTER_CONFIG_NAME} in it. Give the "
            "adapter's folder with --policy.path, or peft.* to train a new adapter on that policy."
        )
    return AdapterPlan(base=pinned(path), base_revision=revision, peft=peft)


def policy_of_run(policy: Any, plan: AdapterPlan) -> Any:
    """The policy config that a run of the adapter saves: LeRobot's words for an adapter on this base."""
    return _with(policy, use_peft=True, pretrained_path=plan.base, pretrained_revision=plan.base_revision)


def build_adapted(policy: Any, plan: AdapterPlan, *, loads_weights: bool, **build: Any) -> Any:
    """The base with its weights, frozen, and the adapter on it. `build` are the arguments of `build_policy`."""
    base = _with(policy, use_peft=False, pretrained_path=plan.base, pretrained_revision=plan.base_revision)
    built = build_policy(base, **build)
    plan.attach(built)
    if plan.weights is not None and loads_weights:
        load_adapter_weights(built, Path(plan.weights))
    return built


def adapter_size(policy: Any, plan: AdapterPlan) -> AdapterSize | None:
    """How much is trained, from the shapes alone; ConfigError for an adapter that does not go on the policy.

    None for policies of other packages, which may not be built without their weights: those find out on the workers.
    """
    from lerobot_ray.policies.protocol import PretrainedPolicy, without_backbone_weights

    if getattr(policy, "is_lerobot", False):
        return None
    cls = policy_class_of(type(policy))
    if not issubclass(cls, PretrainedPolicy):
        return None
    with torch.device("meta"):
        shapes = cls(without_backbone_weights(_with(policy, use_peft=False)))
        plan.attach(shapes)
    parameters = list(shapes.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return AdapterSize(trained=trained, total=sum(parameter.numel() for parameter in parameters))


def _fits(checkpoint: Path, is_wanted: bool) -> bool:
    """Whether the checkpoint is an adapter's. CheckpointError when the run is of the other kind."""
    is_adapter = holds_adapter(checkpoint)
    if is_adapter and not is_wanted:
        raise CheckpointError(
            f"{checkpoint} holds an adapter, and this run trains a whole policy. Resume with the flags it was begun "
            "with, or give another --output_dir."
        )
    if is_wanted and not is_adapter:
        raise CheckpointError(
            f"{checkpoint} holds a whole policy, and this run trains an adapter. Resume without peft.*, or begin a new "
            "run with --policy.path at that folder and another --output_dir."
        )
    return is_adapter


def _plan_of_checkpoint(checkpoint: Path, peft: PeftConfig | None, *, instead: str | None) -> AdapterPlan:
    settings = read_settings(checkpoint)
    if peft is not None:
        asked = {"peft_type": peft.method_type.upper(), "r": peft.r, "lora_alpha": peft.lora_alpha}
        for name, value in asked.items():
            if value is not None and name in settings and settings[name] != value:
                raise CheckpointError(
                    f"the adapter in {checkpoint} has {name}={settings[name]}, and this run asks for {value}. Resume "
                    "with the flags it was begun with, or give another --output_dir."
                )
    base = base_of(settings, place=checkpoint, instead=instead)
    moved = {**settings, "base_model_name_or_path": base}
    return AdapterPlan(base=base, base_revision=settings.get("revision"), settings=moved, place=str(checkpoint))


def _with(policy: Any, **values: Any) -> Any:
    changed = copy.deepcopy(policy)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed
