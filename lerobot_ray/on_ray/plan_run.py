"""From a config to a run that can be started. What can be refused without a cluster is refused here."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from lerobot_ray.config.parallel import replicas_and_shards
from lerobot_ray.config.train import TrainConfig, global_batch
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import PRETRAINED_DIR
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.on_ray.pretrained import local_policy, policy_at, refuse_base_in_checkpoint
from lerobot_ray.on_ray.rollout_check import check_rollouts
from lerobot_ray.on_ray.run_samples import plan_samples, training_stats
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.policies.adapters.plan import adapter_size, plan_adapter, policy_of_run
from lerobot_ray.policies.features import set_features
from lerobot_ray.processing import processors_for_run
from lerobot_ray.tracking.build import plan_tracking


def plan_run(
    config: TrainConfig,
    metadata: DatasetMetadata,
    *,
    world_size: int,
    device: str,
    resume_from: Path | None = None,
    not_ours: tuple[tuple[str, int], ...] = (),
) -> RunSetup:
    """The setup of a run on `world_size` workers that train on `device`; raises what cannot work."""
    assert config.output_dir is not None
    output_dir = config.output_dir
    refuse_jobs(config)
    replicas_and_shards(config.parallelism, world_size)
    seed = config.seed or 0
    config = _with_features(config, metadata, device)
    policy: Any = config.policy
    base = None if resume_from or not policy.pretrained_path else local_policy(policy)
    begun = policy_at(policy, base) if base is not None and policy.use_peft else policy
    adapter = plan_adapter(begun, config.peft, checkpoint=resume_from and resume_from / PRETRAINED_DIR)
    if adapter is not None and config.peft is not None and base is not None:
        refuse_base_in_checkpoint(base, str(policy.pretrained_path))
    size = None
    if adapter is not None:
        size = adapter_size(policy, adapter)
        config = dataclasses.replace(config, policy=policy_of_run(policy, adapter))
    samples = plan_samples(config, metadata, seed=seed)
    num_samples, batch = samples.order.num_samples, global_batch(config, world_size)
    if batch > num_samples:
        raise ConfigError(
            f"a global batch of {batch} is more than the {num_samples} samples there are to train on. "
            f"Lower --batch_size (now {config.batch_size} on each of {world_size} workers) or --global_batch_size."
        )
    stats = training_stats(config, metadata)
    preprocessor, postprocessor = processors_for_run(
        policy,
        stats,
        pretrained_path=resume_from / PRETRAINED_DIR if resume_from else base,
        resume=resume_from is not None,
        rename_map=config.rename_map or None,
        device=device,
    )
    check_rollouts(config, getattr(preprocessor.step("rename_observations_processor"), "rename_map", None) or {})
    return RunSetup(
        config=config,
        output_dir=output_dir,
        seed=seed,
        spec=samples.spec,
        order=samples.order,
        global_batch=batch,
        preprocessor=preprocessor,
        postprocessor=postprocessor,
        tracking=plan_tracking(config),
        stats=stats,
        held_out=samples.held_out,
        held_out_ids=samples.held_out_ids,
        resume_from=resume_from,
        adapter=adapter,
        adapter_size=size,
        not_ours=not_ours,
        pretrained=base,
    )


def refuse_jobs(config: TrainConfig) -> None:
    """ConfigError for a run that is meant for another place: the command line submits it and never comes here."""
    if config.job.target not in (None, "local"):
        raise ConfigError(
            f"job.target={config.job.target}: the command line submits such a run (python -m lerobot_ray.train …). "
            "To train here, leave it out."
        )


def _with_features(config: TrainConfig, metadata: DatasetMetadata, device: str) -> TrainConfig:
    policy = copy.deepcopy(config.policy)
    policy.device = device  # type: ignore[union-attr]
    set_features(policy, metadata.features, rename_map=config.rename_map, dataset=metadata.repo_id)
    return dataclasses.replace(config, policy=policy)
