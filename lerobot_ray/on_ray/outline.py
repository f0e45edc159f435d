"""A policy's shapes without its numbers: what the driver can know of it before any worker builds it."""

from __future__ import annotations

import copy
from typing import Any

from lerobot_ray.config.parallel import is_sharded
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.policies.protocol import PretrainedPolicy
from lerobot_ray.policies.registry import policy_class_of


def outline(setup: RunSetup) -> Any | None:
    """The policy of a run, nothing of it allocated; None for those that may fetch weights whenever they are built."""
    import torch

    policy: Any = setup.config.policy
    kind = policy_class_of(type(policy))
    if not (isinstance(kind, type) and issubclass(kind, PretrainedPolicy)):
        return None
    with torch.device("meta"):
        return kind(without_pretrained(policy), dataset_stats=setup.stats, dataset_meta=setup.spec.metadata)


def without_pretrained(policy_config: Any) -> Any:
    """The same policy with fresh weights."""
    policy_config = copy.deepcopy(policy_config)
    policy_config.pretrained_path = None
    if getattr(policy_config, "pretrained_backbone_weights", None) is not None:
        policy_config.pretrained_backbone_weights = None
    return policy_config


def check_units(setup: RunSetup) -> None:
    """ConfigError when a run is to be sharded and no part of its policy is a unit to shard."""
    from lerobot_ray.engine.parallel import wrap_units

    if is_sharded(setup.config.parallelism) and (policy := outline(setup)) is not None:
        wrap_units(policy, setup.config.accelerator.fsdp)
