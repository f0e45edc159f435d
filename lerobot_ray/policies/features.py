"""From what a dataset has to what a policy sees: roles and shapes of features, filled into a policy's config.

Works from any mapping of feature name to an object with `dtype`, `shape`, `names`, and `channels_first_shape` for
cameras; the data folder's `FeatureSpec` is one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from lerobot_ray.config.policy import NATIVE, PolicyConfig
from lerobot_ray.core.errors import PolicyError, nearest
from lerobot_ray.core.types import ACTION, OBS_ENV_STATE, OBSERVATION, FeatureType, PolicyFeature

logger = logging.getLogger(__name__)

CAMERA_DTYPES = ("video", "image")
TEXT_DTYPES = ("string", "language")


class Feature(Protocol):
    """One feature of a dataset, as far as a policy cares."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def channels_first_shape(self) -> tuple[int, ...]: ...


def policy_features(features: Mapping[str, Feature]) -> dict[str, PolicyFeature]:
    """The features a policy may use, in the dataset's order: cameras, observations, actions. Texts have no tensor and
    are left out, as is everything whose name begins with neither `observation` nor `action`."""
    found = {}
    for key, feature in features.items():
        if feature.dtype in CAMERA_DTYPES:
            found[key] = PolicyFeature(FeatureType.VISUAL, tuple(feature.channels_first_shape))
        elif feature.dtype not in TEXT_DTYPES and (kind := _kind(key)) is not None:
            found[key] = PolicyFeature(kind, tuple(feature.shape))
    return found


def _kind(key: str) -> FeatureType | None:
    if key == OBS_ENV_STATE:
        return FeatureType.ENV
    if key.startswith(OBSERVATION):
        return FeatureType.STATE
    return FeatureType.ACTION if key.startswith(ACTION) else None


def set_features(
    config: Any,
    features: Mapping[str, Feature],
    *,
    rename_map: Mapping[str, str] | None = None,
    dataset: str = "the dataset",
) -> None:
    """Fills `output_features` of a policy config from the dataset, and `input_features` where there are none yet.

    Features given by a pretrained policy or by flags are compared with the dataset's instead; what cannot work raises
    PolicyError. `rename_map` maps the dataset's keys to the policy's. Ends with the policy's own `validate_features`.
    """
    found = policy_features(features)
    if not any(feature.type is FeatureType.ACTION for feature in found.values()):
        raise PolicyError(f"{dataset} has no action to learn: none of {sorted(features)} begins with {ACTION!r}.")
    if ACTION not in found:
        actions = [key for key, feature in found.items() if feature.type is FeatureType.ACTION]
        logger.warning(
            "%s has no feature named %s; policies that need exactly it will refuse %s", dataset, ACTION, actions
        )
    inputs = {key: feature for key, feature in found.items() if feature.type is not FeatureType.ACTION}
    outputs = {key: feature for key, feature in found.items() if feature.type is FeatureType.ACTION}
    inputs = _renamed(inputs, rename_map or {}, config.input_features or {}, dataset)
    if config.input_features:
        _check_cameras(config, inputs, bool(rename_map), dataset)
        _check_shapes(config, inputs, dataset)
    else:
        config.input_features = inputs
    config.output_features = outputs
    if hasattr(config, "validate_features"):
        config.validate_features()


def _renamed(
    inputs: dict[str, PolicyFeature],
    rename_map: Mapping[str, str],
    wanted: Mapping[str, PolicyFeature],
    dataset: str,
) -> dict[str, PolicyFeature]:
    for old, new in rename_map.items():
        if old not in inputs:
            near = nearest(old, inputs)
            hint = f" Did you mean {near}?" if near else f" It has {', '.join(inputs)}."
            raise PolicyError(f"rename_map renames {old}, which {dataset} does not have.{hint}")
        if wanted and new not in wanted:
            near = nearest(new, wanted)
            hint = f" Did you mean {near}?" if near else f" It reads {', '.join(wanted)}."
            raise PolicyError(f"rename_map calls {old} {new}, which the policy does not read.{hint}")
    result = {rename_map.get(key, key): feature for key, feature in inputs.items()}
    if len(result) != len(inputs):
        raise PolicyError(f"after rename_map={dict(rename_map)} two features of {dataset} have the same name.")
    return result


def _check_cameras(config: Any, inputs: Mapping[str, PolicyFeature], is_renamed: bool, dataset: str) -> None:
    """The camera names of policy and dataset must be nested, either way; a native policy needs all its own."""
    ours = [key for key, feature in config.input_features.items() if _type(feature) == FeatureType.VISUAL.value]
    theirs = [key for key, feature in inputs.items() if feature.type is FeatureType.VISUAL]
    missing = [key for key in ours if key not in theirs]
    unread = [key for key in theirs if key not in ours]
    are_nested = is_renamed or not (missing and unread)
    needs_all = isinstance(config, PolicyConfig) and config.type in NATIVE
    if are_nested and not (missing and needs_all):
        return
    raise PolicyError(
        f"the policy reads the cameras {_listed(ours)}, {dataset} has {_listed(theirs)}"
        f"{' after renaming' if is_renamed else ''}. Name the same camera for the same view with "
        '--rename_map=\'{"observation.images.<dataset>": "observation.images.<policy>"}\', or train the policy on the '
        "dataset's own cameras with --policy.input_features='{}'."
    )


def _check_shapes(config: Any, inputs: Mapping[str, PolicyFeature], dataset: str) -> None:
    """States must have the size the policy has, or be padded by it; cameras must have as many channels."""
    padded_to = getattr(config, "max_state_dim", None)
    for key, feature in config.input_features.items():
        kind, shape = _type(feature), tuple(feature.shape)
        if kind == FeatureType.VISUAL.value:
            _check_camera_shape(key, shape, inputs.get(key), dataset)
            continue
        if key not in inputs:
            near = nearest(key, inputs)
            hint = f" Did you mean {near}? Rename it with --rename_map." if near else ""
            raise PolicyError(f"the policy reads {key}, which {dataset} does not have.{hint}")
        theirs = inputs[key].shape
        is_padded = padded_to is not None and len(theirs) == 1 and theirs[0] <= padded_to
        if theirs != shape and not is_padded:
            raise PolicyError(
                f"{key} has shape {list(theirs)} in {dataset}, the policy reads {list(shape)}. It was made for another "
                "robot; start without --policy.path, or reset with --policy.input_features='{}'."
            )


def _check_camera_shape(key: str, shape: tuple[int, ...], theirs: PolicyFeature | None, dataset: str) -> None:
    if theirs is None or theirs.shape == shape:
        return
    if theirs.shape[0] != shape[0]:
        raise PolicyError(
            f"camera {key} has {theirs.shape[0]} channels in {dataset}, the policy reads {shape[0]}. Is one depth?"
        )
    logger.warning("camera %s is %s in %s, %s in the policy's config", key, theirs.shape[1:], dataset, shape[1:])


def _type(feature: Any) -> str:
    return str(getattr(feature.type, "value", feature.type))


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "(none)"
