"""Spreads a policy over the processes of a run: copies (DDP), shards (FSDP2), or copies of shards.

Called before the optimizer is built, for sharding replaces the parameters. What comes back is what a step needs: the
callable to train through, and a context that says which backward pass exchanges gradients.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lerobot_ray.config.parallel import AcceleratorConfig, FsdpConfig, ParallelismConfig, replicas_and_shards
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.engine.learner import Forward
from lerobot_ray.policies.blocks import checkpoint_blocks, fsdp_wrap_units

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placed:
    """A policy on its devices."""

    forward: Forward
    sync_gradients: Callable[[bool], AbstractContextManager[Any]]
    is_sharded: bool = False


def place(
    policy: torch.nn.Module,
    *,
    device: torch.device,
    world_size: int,
    parallelism: ParallelismConfig,
    accelerator: AcceleratorConfig,
    compute_dtype: torch.dtype | None = None,
) -> Placed:
    """Collective: every rank calls this. Checkpoint activations, compile, and wrap, in the order in which they nest."""
    replicas, shards = replicas_and_shards(parallelism, world_size)
    if accelerator.activation_checkpointing.mode == "full":
        recompute_activations(policy)
    if shards > 1:
        compile_policy(policy, accelerator)
        return _shard(policy, device, replicas, shards, accelerator.fsdp, compute_dtype)
    policy.to(device)
    compile_policy(policy, accelerator)
    if replicas == 1:
        return Placed(policy, lambda is_last: nullcontext())
    ddp = torch.nn.parallel.DistributedDataParallel(
        policy,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=accelerator.ddp.find_unused_parameters,
        gradient_as_bucket_view=accelerator.ddp.gradient_as_bucket_view,
        static_graph=accelerator.ddp.static_graph,
    )
    return Placed(ddp, lambda is_last: nullcontext() if is_last else ddp.no_sync())


def wrap_units(policy: torch.nn.Module, fsdp: FsdpConfig) -> list[str]:
    """Names of the submodules sharded one by one; ConfigError when there are none."""
    if fsdp.wrap_modules:
        wanted = set(fsdp.wrap_modules)
        units = [name for name, module in policy.named_modules() if name and type(module).__name__ in wanted]
    elif fsdp.min_num_params is not None:
        smallest = fsdp.min_num_params
        large = [name for name, module in policy.named_modules() if name and _num_parameters(module) >= smallest]
        units = [name for name in large if not any(other.startswith(f"{name}.") for other in large)]
    else:
        units = fsdp_wrap_units(policy)
    if not units:
        classes = sorted({type(module).__name__ for module in policy.modules() if _num_parameters(module)})
        raise ConfigError(
            f"no part of {type(policy).__name__} is a unit to shard, so sharding would save nothing. Name its blocks: "
            f"--accelerator.fsdp.wrap_modules='[…]' with some of {', '.join(classes[:12])}, or give "
            "--accelerator.fsdp.min_num_params."
        )
    return units


def recompute_activations(policy: torch.nn.Module) -> None:
    """Let the policy's blocks forget their activations and compute them again in the backward pass."""
    for name in checkpoint_blocks(policy):
        block = policy.get_submodule(name)
        block.forward = functools.partial(  # a wrapper module would rename weights
            torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False
        )


def compile_policy(policy: torch.nn.Module, accelerator: AcceleratorConfig) -> None:
    """torch.compile as asked; in place, so that names of weights stay."""
    options = accelerator.compile
    if not options.enabled:
        return
    blocks = [policy.get_submodule(name) for name in fsdp_wrap_units(policy)] if options.regional else []
    for module in blocks or [policy]:
        module.compile(backend=options.backend, mode=options.mode)


def _shard(
    policy: torch.nn.Module,
    device: torch.device,
    replicas: int,
    shards: int,
    fsdp: FsdpConfig,
    compute_dtype: torch.dtype | None,
) -> Placed:
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    units = wrap_units(policy, fsdp)
    ignored = {p for name in fsdp.ignored_modules or [] for p in policy.get_submodule(name).parameters()}
    options: dict[str, Any] = {
        "mesh": device_mesh(device.type, replicas, shards),
        "reshard_after_forward": fsdp.reshard_after_forward,
        # activations stay in the autocast's hands: inputs are not cast, outputs not either
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=compute_dtype, reduce_dtype=torch.float32 if compute_dtype else None, cast_forward_inputs=False
        ),
        "offload_policy": CPUOffloadPolicy() if fsdp.cpu_offload else OffloadPolicy(),
        "ignored_params": ignored or None,
    }
    for name in units:  # one unit at a time reaches the device whole, so the peak is a unit and the shards
        fully_shard(policy.get_submodule(name), **options)
    root = fully_shard(policy, **options)
    for buffer in policy.buffers():
        buffer.data = buffer.data.to(device)
    for method in getattr(policy, "fsdp_forward_methods", ("select_action", "predict_action_chunk")):
        if hasattr(policy, method):
            register_fsdp_forward_method(policy, method)
    logger.info("sharded %d units over %d workers, %d copies", len(units), shards, replicas)

    @contextmanager
    def sync_gradients(is_last: bool):
        root.set_requires_gradient_sync(is_last)
        yield

    return Placed(policy, sync_gradients, is_sharded=True)


def device_mesh(device_type: str, replicas: int, shards: int) -> DeviceMesh:
    """Collective: every rank calls this. Shards are neighbours in rank, copies of a shard are far apart."""
    if replicas == 1:
        return init_device_mesh(device_type, (shards,), mesh_dim_names=("shard",))
    return init_device_mesh(device_type, (replicas, shards), mesh_dim_names=("replicate", "shard"))


def _num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
