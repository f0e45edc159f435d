"""How a step is spread over devices: replicas, shards, accumulation, precision. Pure data and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class ContextParallelConfig:
    """Reserved: sequences are not split over devices."""

    ring_degree: int = 1
    """Must be 1."""
    ulysses_degree: int = 1
    """Must be 1."""

    def __post_init__(self) -> None:
        for name in ("ring_degree", "ulysses_degree"):
            if getattr(self, name) != 1:
                raise ConfigError(f"parallelism.context_parallel.{name}={getattr(self, name)}: only 1 is supported.")


@dataclass(frozen=True)
class ParallelismConfig:
    """Replicas of the model, and shards of each replica."""

    dp_replicate: int = 1
    """Copies of the model. 1: as many as the workers allow; more: exactly so many, or the run does not start."""
    dp_shard: int = 1
    """Workers that share one copy (FSDP2). 1: each holds a whole copy (DDP); -1: all workers share one."""
    context_parallel: ContextParallelConfig = field(default_factory=ContextParallelConfig)
    cfg_parallel: int = 1
    """Reserved; must be 1."""

    def __post_init__(self) -> None:
        if self.dp_replicate < 1:
            raise ConfigError(f"parallelism.dp_replicate={self.dp_replicate} must be at least 1.")
        if self.dp_shard < 1 and self.dp_shard != -1:
            raise ConfigError(
                f"parallelism.dp_shard={self.dp_shard} must be at least 1, or -1 to shard over all workers."
            )
        if self.cfg_parallel != 1:
            raise ConfigError(f"parallelism.cfg_parallel={self.cfg_parallel}: only 1 is supported.")


def is_sharded(parallelism: ParallelismConfig) -> bool:
    """Whether the model is split over workers rather than copied to each."""
    return parallelism.dp_shard != 1


def replicas_and_shards(parallelism: ParallelismConfig, world_size: int) -> tuple[int, int]:
    """(copies of the model, workers per copy) for a number of workers; ConfigError when they do not fit it."""
    shards = world_size // parallelism.dp_replicate if parallelism.dp_shard == -1 else parallelism.dp_shard
    replicas = world_size // shards if shards and parallelism.dp_replicate == 1 else parallelism.dp_replicate
    if not shards or replicas * shards != world_size:
        raise ConfigError(
            f"parallelism.dp_replicate={parallelism.dp_replicate} and parallelism.dp_shard={parallelism.dp_shard} do "
            f"not fit {world_size} workers: copies times shards must be {world_size}. dp_replicate=1 follows the "
            "number of workers, dp_shard=-1 shards over all of them."
        )
    return replicas, shards


@dataclass(frozen=True)
class GradientAccumulationConfig:
    """Several forward passes per optimizer step."""

    steps: int = 1
    """Micro-batches per optimizer step and worker. `steps`, schedules and intervals count optimizer steps."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"accelerator.gradient_accumulation.steps={self.steps} must be at least 1.")


@dataclass(frozen=True)
class FsdpConfig:
    """How a sharded model is cut (parallelism.dp_shard)."""

    reshard_after_forward: bool = True
    """Free gathered weights after the forward pass: less memory, one more gather."""
    wrap_modules: list[str] | None = None
    """Class names of the modules to shard one by one; null: the policy's own units."""
    min_num_params: int | None = None
    """Shard every module with at least so many parameters, in place of `wrap_modules`."""
    cpu_offload: bool = False
    """Keep the shards in host memory."""
    ignored_modules: list[str] | None = None
    """Names of modules to leave whole on every worker."""

    def __post_init__(self) -> None:
        if self.min_num_params is not None and self.min_num_params < 1:
            raise ConfigError(f"accelerator.fsdp.min_num_params={self.min_num_params} must be at least 1.")
        if self.wrap_modules and self.min_num_params is not None:
            raise ConfigError("accelerator.fsdp has both wrap_modules and min_num_params. Give one of the two.")


@dataclass(frozen=True)
class DdpConfig:
    """Arguments of torch's DistributedDataParallel."""

    find_unused_parameters: bool = True
    """Allow parameters that get no gradient in a step; false saves a walk over the graph each step."""
    gradient_as_bucket_view: bool = False
    """Let gradients share memory with the communication buffers."""
    static_graph: bool = False
    """Promise that every step uses the same parameters."""


@dataclass(frozen=True)
class CompileConfig:
    """torch.compile."""

    enabled: bool = False
    """Compile the policy's forward pass."""
    backend: str = "inductor"
    """torch.compile's backend."""
    mode: str | None = None
    """torch.compile's mode: default, reduce-overhead, max-autotune."""
    regional: bool = True
    """Compile the policy's repeated blocks one by one, which starts sooner, rather than the whole."""


@dataclass(frozen=True)
class ActivationCheckpointingConfig:
    """Recompute activations in the backward pass to save memory."""

    mode: Literal["none", "full"] = "none"
    """full: every block the policy names."""


@dataclass(frozen=True)
class AcceleratorConfig:
    """Precision, accumulation and wrapping of the model."""

    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """Autocast; null: what the policy's `dtype` or `use_amp` says."""
    gradient_accumulation: GradientAccumulationConfig = field(default_factory=GradientAccumulationConfig)
    fsdp: FsdpConfig = field(default_factory=FsdpConfig)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    activation_checkpointing: ActivationCheckpointingConfig = field(default_factory=ActivationCheckpointingConfig)


def autocast_precision(accelerator: AcceleratorConfig, policy: Any, *, device: str) -> str:
    """`no`, `fp16` or `bf16`, as LeRobot 0.6.1 decides it when the flag is not given.

    A policy with a `dtype` field decides by it; otherwise `use_amp` picks torch's usual half precision of the device.
    """
    if accelerator.mixed_precision is not None:
        return accelerator.mixed_precision
    dtype = getattr(policy, "dtype", None)
    if dtype is not None:
        return {"bfloat16": "bf16", "float16": "fp16"}.get(str(dtype).removeprefix("torch."), "no")
    if not policy.use_amp:
        return "no"
    return "fp16" if device.startswith("cuda") else "bf16"


def micro_batches(share: int, *, largest: int) -> tuple[int, int]:
    """(micro-batch, accumulation steps): `share` samples in equal parts of at most `largest`."""
    micro_batch = next(size for size in range(min(share, largest), 0, -1) if share % size == 0)
    return micro_batch, share // micro_batch
