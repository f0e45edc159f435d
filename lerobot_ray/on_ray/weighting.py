"""The weights of a run's samples, settled on the driver."""

from __future__ import annotations

import inspect
import logging

from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.progress import find_progress, progress_weights, read_progress
from lerobot_ray.data.sample_weights import SampleWeights
from lerobot_ray.policies.registry import policy_class_of

logger = logging.getLogger(__name__)


def plan_weights(config: TrainConfig, metadata: DatasetMetadata) -> SampleWeights | None:
    """What `sample_weighting.*` asks for; None where all samples count alike."""
    weighting = config.sample_weighting
    if weighting is None or weighting.type == "uniform":
        return None
    policy = policy_class_of(type(config.policy))
    if "reduction" not in inspect.signature(policy.forward).parameters:
        raise ConfigError(
            f"sample_weighting needs a loss per sample, and {policy.__name__}.forward takes no reduction. Leave out "
            "sample_weighting.*, or train a policy that does (act, diffusion)."
        )
    unknown = set(weighting.extra_params) - {"fallback_weight"}
    if unknown:
        raise ConfigError(f"sample_weighting.extra_params takes fallback_weight, not {', '.join(sorted(unknown))}.")
    path = find_progress(metadata, weighting.progress_path)
    progress, last = read_progress(path, column=f"progress_{weighting.head_mode}", num_frames=metadata.total_frames)
    weights = progress_weights(
        progress,
        last,
        chunk=config.policy.chunk_size,  # type: ignore[union-attr]
        kappa=weighting.kappa,
        epsilon=weighting.epsilon,
        fallback=float(weighting.extra_params.get("fallback_weight", 1.0)),
    )
    logger.info(
        "sample weights from %s: %.0f%% of the frames count in full, %.0f%% not at all",
        path, 100 * (weights == 1).mean(), 100 * (weights == 0).mean(),
    )  # fmt: skip
    return SampleWeights(weights, weighting.epsilon)
