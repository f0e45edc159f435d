"""What the loop and evaluation need from a policy: LeRobot's surface, and a base class that has most of it.

The loop calls `forward`, `get_optim_params` and `update`; evaluation calls `reset` and `select_action`; checkpoints
call `save_pretrained` and `from_pretrained`. A policy of another package needs only to match `Policy`;
`PretrainedPolicy` is there to save it the work.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.layout import CONFIG_NAME, WEIGHTS_NAME
from lerobot_ray.core.types import STREAM_INDEX, Batch, Stats
from lerobot_ray.policies.config_file import policy_folder, read_config, save_config
from lerobot_ray.policies.hub import fetch_file
from lerobot_ray.policies.weights import load_weights, save_weights, weights_file

logger = logging.getLogger(__name__)

Reduction = Literal["mean", "none"]
Self = TypeVar("Self", bound="PretrainedPolicy")


class Policy(Protocol):
    """A torch module with these members. All tensors in and out are normalised; processors do that around it."""

    config: Any
    """Delta indices, presets, `normalization_mapping`, features: a `PolicyConfig` or one of LeRobot's."""

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Any] | None]:
        """Loss to minimise, and what to log beside it: tensors or numbers, never waited for by the policy."""

    def get_optim_params(self) -> Iterable[Any]:
        """Parameters, or parameter groups, as torch optimizers take them. Their order numbers the optimizer state."""

    def reset(self) -> None:
        """Called when an episode begins: forget queues."""

    def select_action(self, batch: Batch) -> Tensor:
        """The next action (B, A) for an observation without time axis."""

    def predict_action_chunk(self, batch: Batch) -> Tensor:
        """A chunk of actions (B, T, A)."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Writes `config.json` and `model.safetensors`."""


class PretrainedPolicy(nn.Module):
    """Base of the native policies: loading, saving, placing, and declarations for sharding and checkpointing."""

    config_class: ClassVar[type[PolicyConfig]]
    name: ClassVar[str]

    fsdp_wrap_classes: ClassVar[tuple[str, ...]] = ()
    """Class names of the modules that are sharded as one unit each; empty: found by `blocks.fsdp_wrap_units`."""
    checkpoint_classes: ClassVar[tuple[str, ...]] = ()
    """Class names of the modules whose activations may be recomputed; empty: the FSDP units."""
    adapter_targets: ClassVar[str | None] = None
    """Modules that get an adapter when nobody names any: a regular expression over their names."""
    adapter_saved: ClassVar[tuple[str, ...]] = ()
    """Modules that are trained in full beside an adapter, and saved with it."""
    fsdp_forward_methods: ClassVar[tuple[str, ...]] = ("select_action", "predict_action_chunk")
    """Methods besides `forward` that run the network, which FSDP has to be told of."""

    noise_seed: int = 0
    """Keys the noise of batches that carry stream indices. The loop sets it to the run's seed."""

    def __init__(self, config: PolicyConfig, *, dataset_stats: Stats | None = None, dataset_meta: Any = None) -> None:
        """`config` has its features filled in. The rest is LeRobot's surface: normalisation lives in processors."""
        super().__init__()
        if not isinstance(config, self.config_class):
            raise PolicyError(
                f"{type(self).__name__} is built from {self.config_class.__name__}, not {type(config).__name__}. "
                f"Use build_policy(config), which picks the class by config.type."
            )
        config.validate_features()
        self.config = config

    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_name_or_path: str | Path,
        *,
        config: PolicyConfig | None = None,
        revision: str | None = None,
        strict: bool = False,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> Self:
        """The policy of a folder or Hub repository, in eval mode on `config.device`.

        `config` replaces the folder's own. Not `strict`: missing and unexpected keys are logged and left as they are.
        `kwargs` go to the constructor.
        """
        download: dict[str, Any] = {
            "force_download": force_download,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        is_local = Path(pretrained_name_or_path).expanduser().is_dir()
        folder = policy_folder(pretrained_name_or_path, revision=revision, **download)
        if config is None:
            config = read_config(folder)
        if config.use_peft:
            from lerobot_ray.policies.adapters.load import load_adapted

            config = copy.copy(config)
            config.pretrained_path, config.pretrained_revision = str(pretrained_name_or_path), revision
            return load_adapted(config)
        if not isinstance(config, cls.config_class):
            raise PolicyError(
                f"{folder / CONFIG_NAME} describes a policy of type {config.type}, not {cls.name}. "
                f"Use policy_class({config.type!r}).from_pretrained."
            )
        if is_local:
            path = weights_file(folder)
        else:
            path = fetch_file(str(pretrained_name_or_path), WEIGHTS_NAME, revision=revision, **download)
        policy = cls(without_backbone_weights(config), **kwargs)
        policy.config = config
        load_weights(policy, path, strict=strict)
        return policy.to(resolve_device(config.device)).eval()

    def save_pretrained(self, save_directory: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Writes `config.json` and `model.safetensors`; `state_dict` replaces the policy's own (gathered, averaged)."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_config(self.config, folder)
        if self.config.use_peft:
            from lerobot_ray.policies.adapters.load import save_adapter

            save_adapter(self, folder, state_dict)
            return
        save_weights(self.state_dict() if state_dict is None else state_dict, folder / WEIGHTS_NAME)

    def get_optim_params(self) -> Iterable[Any]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def update(self) -> None:
        """Called after each optimizer step, for policies that keep a moving average of themselves."""

    def init_buffers(self) -> None:
        """Recomputes buffers that are not in the weights file; needed after `to_empty` on a policy built on meta."""

    def reset(self) -> None:
        raise NotImplementedError

    def forward(self, batch: Batch, reduction: Reduction = "mean") -> tuple[Tensor, dict[str, Any] | None]:
        """Loss, and what to log. With reduction "none" the loss is (B,): each sample's own, for sample weights."""
        raise NotImplementedError

    def select_action(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def predict_action_chunk(self, batch: Batch) -> Tensor:
        raise NotImplementedError


def require_keys(batch: Mapping[str, Any], keys: Iterable[str], *, policy: str) -> None:
    """PolicyError when the batch lacks something the policy was configured with."""
    missing = [key for key in keys if key not in batch]
    if missing:
        has = ", ".join(key for key in batch if key != STREAM_INDEX)
        raise PolicyError(
            f"{policy} needs {', '.join(missing)} in the batch, which has {has or 'nothing'}. If the dataset or "
            f"environment has it under another name, map it with rename_map."
        )


def resolve_device(device: str | None) -> torch.device:
    """The device a config asks for, or the best there is when it asks for none or for one that is not there."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    best = accelerator.type if accelerator is not None else "cpu"
    if device is None:
        return torch.device(best)
    wanted = torch.device(device)
    if wanted.type in ("cpu", "meta", best):
        return wanted
    logger.warning("policy.device=%s is not available here, using %s", device, best)
    return torch.device(best)


def without_backbone_weights(config: PolicyConfig) -> PolicyConfig:
    """A copy that does not ask for ImageNet weights, for a policy whose weights are about to be replaced anyway."""
    if getattr(config, "pretrained_backbone_weights", None) is None:
        return config
    return dataclasses.replace(config, pretrained_backbone_weights=None)  # type: ignore[call-arg]
