"""The two pipelines each policy type starts with, as LeRobot builds them.

A type nobody here knows (a plugin's) gets those of ACT, or what its config's own `make_processors(stats)` returns.
Types that LeRobot brings and whose steps are not here are built by LeRobot itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lerobot_ray.config.policy import IN_LEROBOT
from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.layout import POSTPROCESSOR_NAME, PREPROCESSOR_NAME
from lerobot_ray.processing.batch import ToBatch
from lerobot_ray.processing.device import ToDevice, best_device
from lerobot_ray.processing.normalize import Normalizer, Unnormalizer, as_feature, as_norm_map
from lerobot_ray.processing.pipeline import Pipeline
from lerobot_ray.processing.prompt import Pi0NewLine, Pi05Prompt, SmolVLANewLine
from lerobot_ray.processing.relative import AbsoluteActions, RelativeActions, link_relative
from lerobot_ray.processing.rename import RenameObservations
from lerobot_ray.processing.statistics import check_statistics
from lerobot_ray.processing.step import Step
from lerobot_ray.processing.tokenize import Tokenize

PALIGEMMA_TOKENIZER = "google/paligemma-3b-pt-224"

StatsLike = Mapping[str, Mapping[str, Any]]
Middle = Callable[[Any, Step, Step], list[Step]]
"""(policy config, device step, normalizer) -> the preprocessor's steps after rename and to_batch."""


def make_default_processors(
    policy_config: Any,
    stats: StatsLike | None = None,
    *,
    device: str | None = None,
    rename_map: Mapping[str, str] | None = None,
) -> tuple[Pipeline, Pipeline]:
    """(preprocessor, postprocessor) for a policy config with its features filled in, and a dataset's statistics.

    With statistics, they are checked against the features. Without, nothing is normalised until a state is loaded.
    """
    kind = str(policy_config.type)
    if hasattr(policy_config, "make_processors"):
        return policy_config.make_processors(stats)
    if kind in IN_LEROBOT and kind not in _MIDDLES:
        raise ProcessorError(
            f"the processors of policy type {kind} have steps only LeRobot has. Train it through {IN_LEROBOT[kind]}."
        )
    inputs = {key: as_feature(f, key) for key, f in (policy_config.input_features or {}).items()}
    outputs = {key: as_feature(f, key) for key, f in (policy_config.output_features or {}).items()}
    norm_map = as_norm_map(policy_config.normalization_mapping)
    if stats is not None:
        check_statistics({**inputs, **outputs}, norm_map, stats)
    to_device = ToDevice(device or policy_config.device or best_device())
    normalizer = Normalizer({**inputs, **outputs}, norm_map, stats)
    middle = _MIDDLES.get(kind, _plain)(policy_config, to_device, normalizer)
    steps: list[Step] = [RenameObservations(rename_map), ToBatch(), *middle]
    back: list[Step] = [Unnormalizer(outputs, norm_map, stats)]
    if any(isinstance(step, RelativeActions) for step in steps):
        back.append(AbsoluteActions(enabled=policy_config.use_relative_actions))
        link_relative(steps, back)
    back.append(ToDevice("cpu"))
    return Pipeline(steps, name=PREPROCESSOR_NAME), Pipeline(back, name=POSTPROCESSOR_NAME)


def _plain(config: Any, to_device: Step, normalizer: Step) -> list[Step]:
    return [to_device, normalizer]


def _multi_task_dit(config: Any, to_device: Step, normalizer: Step) -> list[Step]:
    tokenize = Tokenize(
        config.text_encoder_name,
        max_length=config.tokenizer_max_length,
        padding=config.tokenizer_padding,
        padding_side=config.tokenizer_padding_side,
        truncation=config.tokenizer_truncation,
    )
    return [tokenize, to_device, normalizer]


def _smolvla(config: Any, to_device: Step, normalizer: Step) -> list[Step]:
    tokenize = Tokenize(config.vlm_model_name, max_length=config.tokenizer_max_length, padding=config.pad_language_to)
    return [SmolVLANewLine(), tokenize, to_device, normalizer]


def _pi0(config: Any, to_device: Step, normalizer: Step) -> list[Step]:
    tokenize = Tokenize(PALIGEMMA_TOKENIZER, max_length=config.tokenizer_max_length)
    return [Pi0NewLine(), tokenize, to_device, _relative(config), normalizer]


def _pi05(config: Any, to_device: Step, normalizer: Step) -> list[Step]:
    prompt = Pi05Prompt(max_state_dim=config.max_state_dim)
    tokenize = Tokenize(PALIGEMMA_TOKENIZER, max_length=config.tokenizer_max_length)
    return [_relative(config), normalizer, prompt, tokenize, to_device]


def _relative(config: Any) -> RelativeActions:
    return RelativeActions(
        enabled=config.use_relative_actions,
        exclude_joints=config.relative_exclude_joints,
        action_names=config.action_feature_names,
    )


_MIDDLES: dict[str, Middle] = {
    **dict.fromkeys(("act", "diffusion", "vqbet", "tdmpc", "gaussian_actor"), _plain),
    "multi_task_dit": _multi_task_dit,
    "smolvla": _smolvla,
    "pi0": _pi0,
    "pi05": _pi05,
}
