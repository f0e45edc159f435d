"""The policies of `cases.py`, built here."""

import torch

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.registry import build_policy
from tests.policies.cases import Case
from tests.policies.reference import refill

TYPES = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}


def config_of(case: Case, **options):
    return PolicyConfig.get_choice_class(case.type)(
        input_features={key: PolicyFeature(TYPES.get(key, FeatureType.VISUAL), s) for key, s in case.shapes.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (case.action,))},
        **{"device": "cpu"} | case.options | options,
    )


def build(case: Case, **options):
    return build_policy(config_of(case, **options)).to(torch.get_default_dtype())


def filled(case: Case, **options):
    policy = build(case, **options)
    refill(policy)
    return policy
