"""Writes tests/processing/goldens/ with LeRobot's own processors. Run it under an interpreter that has lerobot 0.6.1,
and transformers for the pipelines that tokenise (a tokenizer of a dozen words stands in for the published ones):

    PEER_PYTHON tests/processing/make_processor_goldens.py

    <type>/          the pipelines of each policy type, as LeRobot saves them
    values.safetensors, values.json     what they make of the inputs of `cases.py`
    versions.json
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature  # noqa: E402
from lerobot.policies.factory import make_policy_config, make_pre_post_processors  # noqa: E402
from lerobot.processor import (  # noqa: E402
    PolicyProcessorPipeline,
    ProcessorStepRegistry,
    TransitionKey,
    create_transition,
    policy_action_to_transition,
    transition_to_policy_action,
)

from tests.processing.cases import (  # noqa: E402
    ENVIRONMENT,
    GOLDENS,
    INPUTS,
    MODES,
    OUTPUTS,
    PLAIN_TYPES,
    TEXTS,
    TOKENIZER_TYPES,
    batch,
    build_tokenizer,
    numbers,
    stats,
)

tensors: dict[str, torch.Tensor] = {}
texts: dict[str, Any] = {}


def features(described: dict) -> dict:
    return {key: PolicyFeature(FeatureType(kind), shape) for key, (kind, shape) in described.items()}


def as_torch(values: dict[str, Any]) -> dict[str, Any]:
    return {key: torch.as_tensor(v) if isinstance(v, np.ndarray | np.generic) else v for key, v in values.items()}


def keep(prefix: str, result: dict[str, Any]) -> None:
    """Tensors of a batch under `prefix/<key>`, everything else and the order of keys in `texts`."""
    texts[f"{prefix}/keys"] = list(result)
    texts[f"{prefix}/plain"] = {key: v for key, v in result.items() if not isinstance(v, torch.Tensor)}
    tensors.update({f"{prefix}/{key}": v.contiguous() for key, v in result.items() if isinstance(v, torch.Tensor)})


def pipelines(kind: str, options: dict[str, Any] | None = None) -> tuple:
    config = make_policy_config(
        kind,
        device="cpu",
        input_features=features(INPUTS | (ENVIRONMENT if kind in ("act", "diffusion") else {})),
        output_features=features(OUTPUTS),
        **(options or {}),
    )
    return make_pre_post_processors(config, dataset_stats=stats())


def policies() -> None:
    for kind in (*PLAIN_TYPES, *TOKENIZER_TYPES):
        pre, post = pipelines(kind)
        pre.save_pretrained(GOLDENS / kind)
        post.save_pretrained(GOLDENS / kind)
        keep(f"{kind}/pre", pre(as_torch(batch(kind))))
        tensors[f"{kind}/post"] = post(torch.from_numpy(numbers(2, 5, 4, salt=3)))
    one = {key: v[0] for key, v in batch("act").items()}
    keep("act/unbatched", pipelines("act")[0](as_torch(one)))
    relative = {"use_relative_actions": True, "action_feature_names": ["a.pos", "b.pos", "Left_Gripper.pos", "d.pos"]}
    for kind in ("pi0", "pi05"):
        pre, post = pipelines(kind, relative)
        pre.save_pretrained(GOLDENS / f"{kind}_relative")
        post.save_pretrained(GOLDENS / f"{kind}_relative")
        keep(f"{kind}_relative/pre", pre(as_torch(batch(kind))))
        tensors[f"{kind}_relative/post"] = post(tensors[f"{kind}_relative/pre/action"])


def modes() -> None:
    """Each mode both ways: float32, float64 and half precision, constant dimensions, another eps."""
    x = numbers(3, 5, 4, salt=21, scale=5)
    for mode in MODES:
        norm_map = {FeatureType.STATE: NormalizationMode(mode), FeatureType.ACTION: NormalizationMode(mode)}
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            for eps in (1e-8, 1e-2):
                for name in ("normalizer_processor", "unnormalizer_processor"):
                    step = ProcessorStepRegistry.get(name)(
                        features=features(INPUTS | OUTPUTS), norm_map=norm_map, stats=stats(), eps=eps
                    )
                    value = torch.from_numpy(x).to(dtype)
                    done = step(create_transition(observation={"observation.state": value}, action=value))
                    place = f"modes/{mode}/{str(dtype).removeprefix('torch.')}/{eps:g}/{name}"
                    tensors[f"{place}/state"] = done[TransitionKey.OBSERVATION]["observation.state"]
                    tensors[f"{place}/action"] = done[TransitionKey.ACTION]
    norm_map = {FeatureType.VISUAL: NormalizationMode.QUANTILES}
    step = ProcessorStepRegistry.get("normalizer_processor")(
        features=features(INPUTS),
        norm_map=norm_map,
        stats=stats(),
        normalize_observation_keys={"observation.images.wrist"},
    )
    texts["only_some_keys/config"] = step.get_config()
    images = {key: value for key, value in as_torch(batch("act")).items() if key.startswith("observation.images")}
    done = step(create_transition(observation=images))[TransitionKey.OBSERVATION]
    tensors.update({f"only_some_keys/{key}": value for key, value in done.items()})


def prompts(tokenizer: Path) -> None:
    for padding, side, length in (("max_length", "right", 12), ("longest", "left", 12), ("longest", "right", 3)):
        step = ProcessorStepRegistry.get("tokenizer_processor")(
            tokenizer_name=str(tokenizer), max_length=length, padding=padding, padding_side=side
        )
        pipeline = PolicyProcessorPipeline(steps=[step], name="x")
        keep(f"tokens/{padding}/{side}/{length}", pipeline({"task": TEXTS, "observation.state": torch.zeros(4, 2)}))
    state = torch.tensor(
        [[-1.0, -0.999, 0.0, 0.5, 1.0, 1.5, -2.0, float("nan")]] * 2 + [[0.9921875, -0.9921875] * 4] * 2
    )
    step = ProcessorStepRegistry.get("pi05_prepare_state_tokenizer_processor_step")()
    pipeline = PolicyProcessorPipeline(steps=[step], name="x")
    texts["pi05_prompts"] = pipeline({"task": TEXTS, "observation.state": state})["task"]
    tensors["pi05_prompts/state"] = state


def relative() -> None:
    state = torch.from_numpy(numbers(2, 5, salt=31))
    words = {
        "all": ([], None),
        "gripper": (["gripper"], ["left_gripper.pos", "arm", "Gripper", "forearm"]),
        "arm": (["ARM", ""], ["left_gripper.pos", "arm", "Gripper", "forearm"]),
        "few": (["b"], ["a", "b"]),
    }
    texts["relative"] = words
    for name, (exclude, names) in words.items():
        forward = ProcessorStepRegistry.get("relative_actions_processor")(
            enabled=True, exclude_joints=exclude, action_names=names
        )
        back = ProcessorStepRegistry.get("absolute_actions_processor")(enabled=True, relative_step=forward)
        undo = PolicyProcessorPipeline(
            steps=[back],
            name="x",
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        )
        for action in (torch.from_numpy(numbers(2, 3, 4, salt=32)), torch.from_numpy(numbers(2, 4, salt=33))):
            pipeline = PolicyProcessorPipeline(steps=[forward], name="x")
            done = pipeline({"observation.state": state, "action": action})["action"]
            tensors[f"relative/{name}/{action.ndim}"] = done
            tensors[f"absolute/{name}/{action.ndim}"] = undo(done)


def main() -> None:
    shutil.rmtree(GOLDENS, ignore_errors=True)
    GOLDENS.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tokenizer(Path(folder))
        published = transformers.AutoTokenizer.from_pretrained
        transformers.AutoTokenizer.from_pretrained = lambda name, *a, **k: published(str(tokenizer), *a, **k)
        policies()
        modes()
        prompts(tokenizer)
        relative()
    save_file({key: value.contiguous() for key, value in tensors.items()}, GOLDENS / "values.safetensors")
    (GOLDENS / "values.json").write_text(json.dumps(texts, indent=1))
    names = ("lerobot", "torch", "numpy", "safetensors", "transformers", "tokenizers")
    versions = {name: importlib.metadata.version(name) for name in names} | {"python": sys.version.split()[0]}
    (GOLDENS / "versions.json").write_text(json.dumps(versions, indent=1))


if __name__ == "__main__":
    main()
