"""The same files and the same numbers as LeRobot 0.6.1, from goldens that `make_processor_goldens.py` wrote."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lerobot_ray.core.layout import POSTPROCESSOR_NAME, PREPROCESSOR_NAME
from lerobot_ray.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot_ray.processing import load_processors, make_default_processors
from lerobot_ray.processing.normalize import Normalizer, Unnormalizer
from lerobot_ray.processing.pipeline import Pipeline
from lerobot_ray.processing.prompt import Pi05Prompt
from lerobot_ray.processing.relative import AbsoluteActions, RelativeActions
from lerobot_ray.processing.tokenize import Tokenize
from tests.processing.cases import (
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

MEAN_STD, MIN_MAX, IDENTITY, QUANTILES = (
    NormalizationMode(name) for name in ("MEAN_STD", "MIN_MAX", "IDENTITY", "QUANTILES")
)
NORMALIZATION = {
    "act": (MEAN_STD, MEAN_STD, MEAN_STD),
    "diffusion": (MEAN_STD, MIN_MAX, MIN_MAX),
    "vqbet": (IDENTITY, MIN_MAX, MIN_MAX),
    "multi_task_dit": (MEAN_STD, MIN_MAX, MIN_MAX),
    "smolvla": (IDENTITY, MEAN_STD, MEAN_STD),
    "pi0": (IDENTITY, MEAN_STD, MEAN_STD),
    "pi05": (IDENTITY, QUANTILES, QUANTILES),
}


@dataclass
class Described:
    """What the processors look at in a policy's config, with LeRobot's defaults."""

    type: str
    normalization_mapping: dict[str, NormalizationMode]
    tokenizer_max_length: int = 48
    options: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    text_encoder_name: str = "openai/clip-vit-base-patch16"
    tokenizer_padding: str = "max_length"
    tokenizer_padding_side: str = "right"
    tokenizer_truncation: bool = True
    vlm_model_name: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    pad_language_to: str = "longest"
    max_state_dim: int = 32
    use_relative_actions: bool = False
    relative_exclude_joints: tuple[str, ...] = ("gripper",)
    action_feature_names: list[str] | None = None

    @property
    def input_features(self):
        return features(INPUTS | (ENVIRONMENT if self.type in ("act", "diffusion") else {}))

    @property
    def output_features(self):
        return features(OUTPUTS)


def features(described):
    return {key: PolicyFeature(FeatureType(kind), shape) for key, (kind, shape) in described.items()}


def described(kind, **options):
    if kind == "tdmpc":
        mapping = {"VISUAL": IDENTITY, "STATE": IDENTITY, "ENV": IDENTITY, "ACTION": MIN_MAX}
    else:
        mapping = dict(zip(("VISUAL", "STATE", "ACTION"), NORMALIZATION[kind], strict=True))
    length = {"multi_task_dit": 77, "pi05": 200}.get(kind, 48)
    return Described(kind, mapping, length, **options)


RELATIVE = {
    "use_relative_actions": True,
    "action_feature_names": ["a.pos", "b.pos", "Left_Gripper.pos", "d.pos"],
}
CASES = {
    **{kind: (kind, {}) for kind in (*PLAIN_TYPES, *TOKENIZER_TYPES)},
    "pi0_relative": ("pi0", RELATIVE),
    "pi05_relative": ("pi05", RELATIVE),
}


@pytest.fixture(scope="module")
def values():
    return load_file(GOLDENS / "values.safetensors")


@pytest.fixture(scope="module")
def texts():
    return json.loads((GOLDENS / "values.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def published(tokenizer, monkeypatch):
    """Published tokenizers, which are not here, are the small one: the goldens were made the same way."""
    from transformers import AutoTokenizer

    real = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: real(str(tokenizer)))


def as_torch(arrays):
    return {k: torch.as_tensor(v) if isinstance(v, np.ndarray | np.generic) else v for k, v in arrays.items()}


def assert_same(result, prefix, values, texts):
    """Keys, their order, every tensor to the last bit, everything else."""
    assert list(result) == texts[f"{prefix}/keys"]
    for key, value in result.items():
        if isinstance(value, torch.Tensor):
            expected = values[f"{prefix}/{key}"]
            assert value.dtype == expected.dtype, key
            torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True, msg=key)
        else:
            assert value == texts[f"{prefix}/plain"][key], key


@pytest.mark.parametrize("case", CASES)
def test_files_are_lerobots_byte_for_byte(case, tmp_path, published):
    kind, options = CASES[case]
    for pipeline in make_default_processors(described(kind, **options), stats()):
        pipeline.save_pretrained(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    expected = {path.name: path.read_bytes() for path in (GOLDENS / case).iterdir()}
    assert written == expected


@pytest.mark.parametrize("case", CASES)
def test_lerobots_files_load_and_give_its_numbers(case, values, texts, published):
    kind, _ = CASES[case]
    preprocessor, postprocessor = load_processors(GOLDENS / case)
    assert_same(preprocessor(as_torch(batch(kind))), f"{case}/pre", values, texts)
    action = values[f"{case}/pre/action"] if "relative" in case else torch.from_numpy(numbers(2, 5, 4, salt=3))
    assert torch.equal(postprocessor(action), values[f"{case}/post"])


@pytest.mark.parametrize("case", CASES)
def test_reading_and_writing_gives_the_same_files(case, tmp_path, published):
    for pipeline in load_processors(GOLDENS / case):
        pipeline.save_pretrained(tmp_path)
    for path in (GOLDENS / case).iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_one_observation_without_a_batch_axis(values, texts):
    one = {key: v[0] for key, v in batch("act").items()}
    preprocessor, _ = make_default_processors(described("act"), stats())
    assert_same(preprocessor(as_torch(one)), "act/unbatched", values, texts)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_both_ways_to_the_last_bit(mode, dtype, values):
    x = torch.from_numpy(numbers(3, 5, 4, salt=21, scale=5)).to(getattr(torch, dtype))
    for eps in (1e-8, 1e-2):
        for step_type in (Normalizer, Unnormalizer):
            step = step_type(features(INPUTS | OUTPUTS), {"STATE": mode, "ACTION": mode}, stats(), eps=eps)
            done = step({"observation": {"observation.state": x}, "action": x})
            place = f"modes/{mode}/{dtype}/{eps:g}/{step_type.registry_name}"
            for found, name in ((done["observation"]["observation.state"], "state"), (done["action"], "action")):
                torch.testing.assert_close(found, values[f"{place}/{name}"], rtol=0, atol=0, equal_nan=True)


def test_only_the_observations_asked_for_are_normalised(values, texts):
    only = {"observation.images.wrist"}
    step = Normalizer(features(INPUTS), {"VISUAL": "QUANTILES"}, stats(), normalize_observation_keys=only)
    assert step.get_config() == texts["only_some_keys/config"]
    images = {key: value for key, value in as_torch(batch("act")).items() if key.startswith("observation.images")}
    done = step({"observation": images, "action": None})["observation"]
    for key, value in done.items():
        assert torch.equal(value, values[f"only_some_keys/{key}"])
    assert torch.equal(done["observation.images.front"], images["observation.images.front"])


@pytest.mark.parametrize(
    ("padding", "side", "length"), [("max_length", "right", 12), ("longest", "left", 12), ("longest", "right", 3)]
)
def test_tokens(padding, side, length, tokenizer, values, texts):
    step = Tokenize(str(tokenizer), max_length=length, padding=padding, padding_side=side)
    pipeline = Pipeline([step], name="x")
    for _ in range(2):  # the second time from the store
        result = pipeline({"task": TEXTS, "observation.state": torch.zeros(4, 2)})
        assert_same(result, f"tokens/{padding}/{side}/{length}", values, texts)


def test_pi05_prompts(values, texts):
    pipeline = Pipeline([Pi05Prompt()], name="x")
    assert pipeline({"task": TEXTS, "observation.state": values["pi05_prompts/state"]})["task"] == texts["pi05_prompts"]


@pytest.mark.parametrize("name", ["all", "gripper", "arm", "few"])
def test_relative_actions_and_back(name, values, texts):
    exclude, names = texts["relative"][name]
    forward = RelativeActions(enabled=True, exclude_joints=exclude, action_names=names)
    pipeline = Pipeline([forward], name="x")
    back = Pipeline([AbsoluteActions(enabled=True, relative_step=forward)], name="x")
    state = torch.from_numpy(numbers(2, 5, salt=31))
    for action in (torch.from_numpy(numbers(2, 3, 4, salt=32)), torch.from_numpy(numbers(2, 4, salt=33))):
        done = pipeline({"observation.state": state, "action": action})["action"]
        assert torch.equal(done, values[f"relative/{name}/{action.ndim}"])
        assert torch.equal(back(done), values[f"absolute/{name}/{action.ndim}"])


def test_goldens_are_lerobot_0_6_1s_and_small():
    assert json.loads((GOLDENS / "versions.json").read_text())["lerobot"] == "0.6.1"
    assert sum(path.stat().st_size for path in GOLDENS.rglob("*") if path.is_file()) < 500_000
    names = {path.name for path in Path(GOLDENS / "act").iterdir()}
    assert {f"{PREPROCESSOR_NAME}.json", f"{POSTPROCESSOR_NAME}.json"} < names
