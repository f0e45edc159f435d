"""The processors of a training run: new ones, or saved ones brought up to this run's dataset and device.

| run                          | steps  | device, features, modes, renaming | statistics          |
| fresh policy                 | new    | this run's                        | the dataset's       |
| from a pretrained policy     | loaded | this run's                        | the dataset's       |
| resumed                      | loaded | this run's                        | the checkpoint's    |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.layout import POSTPROCESSOR_NAME, PREPROCESSOR_NAME
from lerobot_ray.processing.defaults import StatsLike, make_default_processors
from lerobot_ray.processing.device import best_device
from lerobot_ray.processing.load import entry_names, load_pipeline, read_document
from lerobot_ray.processing.normalize import Normalizer, Unnormalizer, as_feature, as_norm_map
from lerobot_ray.processing.pipeline import Pipeline
from lerobot_ray.processing.relative import link_relative
from lerobot_ray.processing.source import open_source
from lerobot_ray.processing.statistics import check_statistics, renamed_stats, unnormalized

logger = logging.getLogger(__name__)


def processors_for_run(
    policy_config: Any,
    stats: StatsLike | None,
    pretrained_path: str | Path | None = None,
    resume: bool = False,
    rename_map: Mapping[str, str] | None = None,
    device: str | None = None,
    revision: str | None = None,
) -> tuple[Pipeline, Pipeline]:
    """(preprocessor, postprocessor) of a run. `stats` are the dataset's, ImageNet's already in place where wanted.

    `rename_map` maps the dataset's keys to the policy's; the statistics follow it. When resuming, an empty `rename_map`
    keeps the checkpoint's. Raises ProcessorError when a feature to be normalised has no statistics.
    """
    ours = renamed_stats(stats, rename_map) if stats is not None and rename_map else stats
    if pretrained_path is None:
        if resume:
            raise ProcessorError("a resumed run needs the checkpoint's pretrained_model folder for its processors.")
        return make_default_processors(policy_config, ours or {}, device=device, rename_map=rename_map)
    preprocessor, postprocessor = load_processors(
        pretrained_path,
        revision=revision,
        overrides=_overrides(policy_config, None if resume else ours or {}, rename_map, device),
    )
    for step in (*preprocessor, *postprocessor):
        if isinstance(step, Normalizer | Unnormalizer):
            _check(step, resumed_from=str(pretrained_path) if resume else None)
    return preprocessor, postprocessor


def _check(step: Normalizer | Unnormalizer, *, resumed_from: str | None) -> None:
    if resumed_from is None:
        check_statistics(step.features, step.norm_map, step.stats)
        return
    # A LeRobot run with a rename_map keeps statistics under the dataset's names, so the renamed cameras were never
    # normalised. Going on the same way is what a resume promises; saying so is what it owes.
    absent = unnormalized(step.features, step.norm_map, step.stats)
    for key in absent:
        logger.warning("no statistics for %s in %s: it stays unnormalised, as it was so far", key, resumed_from)
    features = {key: feature for key, feature in step.features.items() if key not in absent}
    check_statistics(features, step.norm_map, step.stats, where=f"the processors saved in {resumed_from}")


def load_processors(
    pretrained: str | Path, *, revision: str | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Pipeline, Pipeline]:
    """Both pipelines of a policy folder or Hub repository, linked where one needs what the other saw.

    For evaluation and deployment. `overrides` go to whichever of the two has the step; one that neither has is ignored
    here (`load_pipeline` is strict).
    """
    pipelines = [
        load_pipeline(pretrained, name, revision=revision, overrides=_present(overrides, pretrained, name, revision))
        for name in (PREPROCESSOR_NAME, POSTPROCESSOR_NAME)
    ]
    link_relative(*pipelines)
    return pipelines[0], pipelines[1]


def _present(
    overrides: Mapping[str, Mapping[str, Any]] | None, pretrained: str | Path, name: str, revision: str | None
) -> dict[str, Mapping[str, Any]]:
    """Those of the overrides whose step this pipeline has."""
    if not overrides:
        return {}
    source, file_name = open_source(pretrained, name, revision)
    steps: Iterable[Mapping[str, Any]] = read_document(source.require(file_name))["steps"]
    names = {known for entry in steps for known in entry_names(entry)}
    found = {key: value for key, value in overrides.items() if key in names}
    if name == POSTPROCESSOR_NAME:  # actions come back to the host, whatever the policy runs on
        found.pop("device_processor", None)
    return found


def _overrides(
    policy_config: Any, stats: StatsLike | None, rename_map: Mapping[str, str] | None, device: str | None
) -> dict[str, dict[str, Any]]:
    inputs = {key: as_feature(f, key) for key, f in (policy_config.input_features or {}).items()}
    outputs = {key: as_feature(f, key) for key, f in (policy_config.output_features or {}).items()}
    norm_map = as_norm_map(policy_config.normalization_mapping)
    given = {} if stats is None else {"stats": stats}
    overrides: dict[str, dict[str, Any]] = {
        "device_processor": {"device": device or policy_config.device or best_device()},
        "normalizer_processor": {"features": {**inputs, **outputs}, "norm_map": norm_map, **given},
        "unnormalizer_processor": {"features": outputs, "norm_map": norm_map, **given},
    }
    if rename_map:
        overrides["rename_observations_processor"] = {"rename_map": dict(rename_map)}
    return overrides
