"""Whether a policy can act in an environment: everything that can be known before the first step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.policy import NATIVE
from lerobot_ray.core.errors import EnvError, PolicyError, nearest
from lerobot_ray.core.types import ACTION, FeatureType, PolicyFeature
from lerobot_ray.envs.hosts import spec_of
from lerobot_ray.envs.stage import EnvSpec

logger = logging.getLogger(__name__)

RESIZERS = ("resize_shape", "resize_imgs_with_padding", "image_resolution", "image_size", "resize_hw")
"""Options by which policies say that they bring pictures to their own size."""


def check_policy_fits(
    env_config: EnvConfig, policy_config: Any, *, rename_map: Mapping[str, str] | None = None, policy_class: Any = None
) -> EnvSpec:
    """Builds the environment here, compares it with what the policy was trained on, and returns what it gives.

    EnvError or PolicyError names the first thing that does not fit and what to do. `rename_map` maps the environment's
    dataset keys to the policy's (that of a checkpoint is in its preprocessor). `policy_class` is found by the config's
    type when it is not given; finding it imports torch.
    """
    check_can_act(_class_of(policy_config) if policy_class is None else policy_class, policy_config.type)
    spec = spec_of(env_config)
    check_features(spec, policy_config, rename_map=rename_map)
    return spec


def check_can_act(policy_class: Any, policy_type: str) -> None:
    """PolicyError for a policy that cannot be asked for an action."""
    from lerobot_ray.policies.protocol import PretrainedPolicy

    method = getattr(policy_class, "select_action", None)
    if not callable(method) or method is PretrainedPolicy.select_action:
        name = getattr(policy_class, "__qualname__", policy_class)
        raise PolicyError(
            f"policy.type={policy_type} cannot act: {name} has no select_action(batch) -> Tensor (B, A). Define it to "
            "evaluate the policy, or train without an environment (--env=null)."
        )


def check_features(spec: EnvSpec, policy_config: Any, *, rename_map: Mapping[str, str] | None = None) -> None:
    """EnvError when the policy reads what the environment does not give, in another shape, or moves something else."""
    given = _renamed(spec, rename_map or {})
    inputs: Mapping[str, Any] = policy_config.input_features or {}
    needs_every_camera = policy_config.type in NATIVE
    cameras = [key for key, feature in inputs.items() if _is_camera(feature)]
    for key, feature in inputs.items():
        if key in given:
            _check_shape(spec, policy_config, key, feature, given[key])
        elif key not in cameras or needs_every_camera or not any(camera in given for camera in cameras):
            raise EnvError(_missing(spec, given, key))
        else:  # some policies of other packages fill cameras they do not get
            logger.warning("%s does not give %s, which the policy knows; it goes without", spec.name, key)
    _check_action(spec, policy_config)


def _class_of(policy_config: Any) -> Any:
    from lerobot_ray.policies.registry import policy_class_of

    return policy_class_of(type(policy_config))


def _renamed(spec: EnvSpec, rename_map: Mapping[str, str]) -> dict[str, PolicyFeature]:
    # Names the environment does not have are no error: the map of a checkpoint is about its training data.
    return {rename_map.get(key, key): feature for key, feature in spec.features.items() if key != ACTION}


def _missing(spec: EnvSpec, given: Mapping[str, PolicyFeature], key: str) -> str:
    near = nearest(key, given) or next(iter(given), "observation.state")
    return (
        f"the policy reads {key}, which {spec.name} does not give; it gives {', '.join(given) or 'nothing'}. If one of "
        f'them is the same thing, rename it: --rename_map=\'{{"{near}": "{key}"}}\'; else the policy was trained for '
        "another environment."
    )


def _check_shape(spec: EnvSpec, policy_config: Any, key: str, feature: Any, given: PolicyFeature) -> None:
    wanted, is_camera = tuple(feature.shape), given.type is FeatureType.VISUAL
    if _is_camera(feature) != is_camera:
        kinds = {True: "a camera", False: "numbers"}
        raise EnvError(f"{key} is {kinds[is_camera]} in {spec.name}, the policy reads {kinds[not is_camera]}.")
    if given.shape == wanted:
        return
    if is_camera:
        _check_camera(spec, policy_config, key, wanted, given.shape)
        return
    padded_to = getattr(policy_config, "max_state_dim", None)
    if padded_to is None or len(given.shape) != 1 or given.shape[0] > padded_to:
        raise EnvError(
            f"{key} has shape {list(given.shape)} in {spec.name}, the policy reads {list(wanted)}: it was trained for "
            "another robot."
        )


def _check_camera(spec: EnvSpec, policy_config: Any, key: str, wanted: tuple[int, ...], given: tuple[int, ...]) -> None:
    if given[0] != wanted[0]:
        raise EnvError(f"{key} has {given[0]} channels in {spec.name}, the policy reads {wanted[0]}.")
    resizes = any(getattr(policy_config, name, None) for name in RESIZERS)
    if policy_config.type in NATIVE and not resizes:
        height, width = wanted[1:]
        raise EnvError(
            f"{key} is {given[2]}x{given[1]} in {spec.name}, the policy was trained on {width}x{height}. Set "
            f"--env.observation_width={width} --env.observation_height={height}, or what the environment calls it."
        )
    logger.warning("%s is %s in %s, %s in the policy's config", key, given[1:], spec.name, wanted[1:])


def _check_action(spec: EnvSpec, policy_config: Any) -> None:
    action = (policy_config.output_features or {}).get(ACTION)
    given = spec.features[ACTION].shape
    if action is None:
        outputs = ", ".join(policy_config.output_features or {}) or "nothing"
        raise EnvError(f"the policy predicts {outputs}, and {spec.name} needs {ACTION}.")
    if tuple(action.shape) != given:
        raise EnvError(
            f"the policy predicts {action.shape[0]} numbers per action, {spec.name} takes {given[0]}: it was trained "
            "for another robot, or for another task."
        )


def _is_camera(feature: Any) -> bool:
    return str(getattr(feature.type, "value", feature.type)) == FeatureType.VISUAL.value
