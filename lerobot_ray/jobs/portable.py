"""A run's config as a job can use it: without what only this machine has."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.config.job import JobConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.jobs.secrets import is_remote_server
from lerobot_ray.jobs.site import Site, is_url


def portable(
    config: TrainConfig, site: Site, *, dataset: DatasetConfig, flags: Collection[str], pretrained_path: str | None
) -> tuple[TrainConfig, list[str]]:
    """(the config of the job, what was dropped and why). `flags`: names of the settings that were typed.

    What only a client needs goes: the job section, the address of the cluster, the device this machine happens to have.
    """
    notes: list[str] = []
    policy = copy.deepcopy(config.policy)
    assert policy is not None
    policy.pretrained_path = pretrained_path
    if "policy.device" not in flags:
        policy.device = None
    return replace(
        config,
        job=JobConfig(),
        resume=False,
        checkpoint_path=None,
        policy=policy,
        dataset=_without_local_cache(dataset, site, notes),
        ray=replace(config.ray, address=None, storage_path=_there(config.ray.storage_path, site)),
        mlflow=_mlflow(config, site, notes),
        sample_weighting=_weighting(config, site),
    ), notes


def changed_words(config: TrainConfig, there: TrainConfig) -> list[str]:
    """Flags that say over a saved config what `portable` has changed of its paths and addresses."""
    pairs = {
        "dataset.cache_dir": (config.dataset.cache_dir, there.dataset.cache_dir),
        "mlflow.tracking_uri": (config.mlflow.tracking_uri, there.mlflow.tracking_uri),
        "ray.storage_path": (config.ray.storage_path, there.ray.storage_path),
    }
    return [f"--{name}={'null' if new is None else new}" for name, (old, new) in pairs.items() if old != new]


def output_dir_there(config: TrainConfig, site: Site, *, name: str) -> str | None:
    """Where the job writes: a folder of its machines. None: wherever the run puts it."""
    storage = config.ray.storage_path
    if config.output_dir is not None:
        mapped = site.path_there(config.output_dir)
        if mapped is not None:
            return mapped
        if config.output_dir.is_absolute():
            return str(config.output_dir)
        name = str(config.output_dir)
    if storage is not None and not is_url(storage):
        return f"{_there(storage, site)}/{name}"
    return f"{site.home}/{name}" if site.home else None


def _there(path: str | None, site: Site) -> str | None:
    return path if path is None or is_url(path) else site.path_there(path) or path


def _without_local_cache(dataset: DatasetConfig, site: Site, notes: list[str]) -> DatasetConfig:
    if dataset.cache_dir is None or site.path_there(dataset.cache_dir) is not None:
        return replace(dataset, cache_dir=dataset.cache_dir and site.path_there(dataset.cache_dir))
    if not Path(dataset.cache_dir).expanduser().is_dir():  # not of this machine, so of the job's
        return dataset
    notes.append(f"dataset.cache_dir={dataset.cache_dir} is a folder of this machine: the job uses its nodes' default")
    return replace(dataset, cache_dir=None)


def _mlflow(config: TrainConfig, site: Site, notes: list[str]):
    uri = config.mlflow.tracking_uri
    if uri is None or site.is_here or is_remote_server(uri):
        return config.mlflow
    notes.append("mlflow.tracking_uri is of this machine alone: the job keeps its numbers beside its results")
    return replace(config.mlflow, tracking_uri=None)


def _weighting(config: TrainConfig, site: Site):
    weighting = config.sample_weighting
    if weighting is None or weighting.progress_path is None or is_url(weighting.progress_path):
        return weighting
    there = site.path_there(weighting.progress_path)
    if there is None and Path(weighting.progress_path).expanduser().exists():
        raise ConfigError(
            f"sample_weighting.progress_path={weighting.progress_path} is only on this machine. Put it into the "
            'dataset as sarm_progress.parquet, or say where the job sees it: --job.mounts=\'{"/here": "/there"}\'.'
        )
    return replace(weighting, progress_path=there or weighting.progress_path)
