"""Features from a dataset to a policy: roles, what is kept, and every misfit named before training."""

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.policies.features import policy_features, set_features

HWC = ["height", "width", "channels"]
FRONT, WRIST, STATE = "observation.images.front", "observation.images.wrist", "observation.state"
TYPES = {"V": FeatureType.VISUAL, "S": FeatureType.STATE, "E": FeatureType.ENV, "A": FeatureType.ACTION}


def spec(name, dtype="float32", shape=(4,), names=None, **info):
    return FeatureSpec(name, dtype, shape, names, info)


def camera(name, shape=(64, 96, 3), dtype="video"):
    return spec(name, dtype, shape, HWC)


def dataset(*specs):
    return {one.name: one for one in specs}


def default(**changes):
    """A robot with two cameras; `name=spec` replaces a feature, `name=None` takes it away (dots written as __)."""
    features = dataset(camera(FRONT), camera(WRIST), spec(STATE), spec("action"), spec("index", "int64", (1,)))
    for key, value in changes.items():
        name = key.replace("__", ".")
        features.pop(name) if value is None else features.update({name: value})
    return features


@dataclass
class Foreign:
    """A plugin's config: no base class of ours."""

    input_features: dict[str, Any] | None = None
    output_features: dict[str, Any] | None = None


@dataclass
class Padded(Foreign):
    max_state_dim: int = 6


def act(**inputs):
    config = PolicyConfig.get_choice_class("act")(device="cpu")
    config.input_features = {
        key.replace("__", "."): PolicyFeature(TYPES[kind], shape) for key, (kind, shape) in inputs.items()
    }
    return config


TWO_CAMERAS = {
    "observation__images__front": ("V", (3, 64, 96)),
    "observation__images__wrist": ("V", (3, 64, 96)),
    "observation__state": ("S", (4,)),
}


def test_roles_follow_names_and_types():
    found = policy_features(
        dataset(
            camera(FRONT),
            spec("observation.images.planar", "image", (3, 8, 12), ["channels", "height", "width"]),
            spec("observation.images.depth", "video", (8, 12, 1), HWC, is_depth_map=True),
            spec("observation.matrix", shape=(2, 3)),
            spec("observation.environment_state", shape=(2,)),
            spec("observation.note", "string", (1,)),
            spec("observation.flag", "bool", (1,)),
            spec("action"),
            spec("action.extra", shape=(2,)),
            spec("next.reward", shape=(1,)),
            spec("language_events", "language", (1,)),
        )
    )
    assert {key: (feature.type.value, feature.shape) for key, feature in found.items()} == {
        FRONT: ("VISUAL", (3, 64, 96)),
        "observation.images.planar": ("VISUAL", (3, 8, 12)),
        "observation.images.depth": ("VISUAL", (1, 8, 12)),
        "observation.matrix": ("STATE", (2, 3)),
        "observation.environment_state": ("ENV", (2,)),
        "observation.flag": ("STATE", (1,)),
        "action": ("ACTION", (4,)),
        "action.extra": ("ACTION", (2,)),
    }


def test_an_empty_config_is_filled_from_the_dataset():
    config = act()
    set_features(config, default())
    assert list(config.input_features) == [FRONT, WRIST, STATE]
    assert config.output_features == {"action": PolicyFeature(FeatureType.ACTION, (4,))}


def test_outputs_are_always_the_datasets_and_inputs_stay():
    config = act(**TWO_CAMERAS)
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (9,))}
    before = dict(config.input_features)
    set_features(config, default())
    assert config.input_features == before
    assert config.output_features["action"].shape == (4,)


def test_renamed_features_have_the_policys_names():
    config = act(**TWO_CAMERAS)
    features = dataset(camera("observation.images.top"), camera(WRIST), spec(STATE), spec("action"))
    with pytest.raises(PolicyError, match="rename_map"):
        set_features(config, features)
    set_features(config, features, rename_map={"observation.images.top": FRONT})
    fresh = act()
    set_features(fresh, features, rename_map={"observation.images.top": FRONT})
    assert list(fresh.input_features) == [FRONT, WRIST, STATE]


@pytest.mark.parametrize(
    ("rename_map", "says"),
    [
        ({"observation.images.frnt": FRONT}, r"frnt, which .* does not have.*Did you mean observation\.images\.front"),
        ({FRONT: "observation.images.wrst"}, r"wrst, which the policy does not read.*images\.wrist"),
        ({FRONT: WRIST}, "the same name"),
    ],
)
def test_a_rename_map_that_leads_nowhere(rename_map, says):
    with pytest.raises(PolicyError, match=says):
        set_features(act(**TWO_CAMERAS), default(), rename_map=rename_map)


class TestCameras:
    def test_more_cameras_than_the_policy_reads_are_left_alone(self):
        config = act(observation__images__front=("V", (3, 64, 96)), observation__state=("S", (4,)))
        set_features(config, default())
        assert list(config.image_features) == [FRONT]

    def test_a_native_policy_needs_all_of_its_cameras(self):
        with pytest.raises(
            PolicyError, match=r"front, observation\.images\.wrist, the dataset has observation\.images\.front\."
        ):
            set_features(act(**TWO_CAMERAS), default(observation__images__wrist=None))

    def test_a_plugin_may_do_with_fewer(self):
        config = Foreign(act(**TWO_CAMERAS).input_features)
        set_features(config, default(observation__images__wrist=None))
        assert set(config.output_features) == {"action"}

    def test_names_that_are_not_nested_are_listed_on_both_sides(self):
        features = dataset(camera("observation.images.left"), camera(WRIST), spec(STATE), spec("action"))
        config = Foreign(act(**TWO_CAMERAS).input_features)
        with pytest.raises(PolicyError, match=r"front, .*wrist, so100 has .*left, .*wrist"):
            set_features(config, features, dataset="so100")
        set_features(config, features, rename_map={"observation.images.left": FRONT})

    def test_another_number_of_channels(self):
        with pytest.raises(PolicyError, match="1 channels"):
            set_features(act(**TWO_CAMERAS), default(**{FRONT.replace(".", "__"): camera(FRONT, (64, 96, 1))}))

    def test_another_size_is_said(self, caplog):
        with caplog.at_level(logging.WARNING):
            set_features(act(**TWO_CAMERAS), default(**{FRONT.replace(".", "__"): camera(FRONT, (32, 48, 3))}))
        assert FRONT in caplog.text


class TestStates:
    def test_another_size_is_refused(self):
        with pytest.raises(PolicyError, match=r"observation\.state has shape \[7\] in .*, the policy reads \[4\]"):
            set_features(act(**TWO_CAMERAS), default(observation__state=spec(STATE, shape=(7,))))

    @pytest.mark.parametrize(("size", "fits"), [(3, True), (6, True), (7, False)])
    def test_a_policy_that_pads_takes_what_it_can_pad(self, size, fits):
        config = Padded(act(**TWO_CAMERAS).input_features)
        features = default(observation__state=spec(STATE, shape=(size,)))
        if fits:
            set_features(config, features)
        else:
            with pytest.raises(PolicyError, match=r"\[7\]"):
                set_features(config, features)

    def test_a_state_that_is_not_there(self):
        features = default(observation__state=None, observation__states=spec("observation.states"))
        with pytest.raises(PolicyError, match=r"reads observation\.state, .*Did you mean observation\.states"):
            set_features(act(**TWO_CAMERAS), features)


class TestAction:
    def test_a_dataset_without_one(self):
        with pytest.raises(PolicyError, match="no action to learn"):
            set_features(act(), default(action=None))

    def test_one_of_another_name(self, caplog):
        with caplog.at_level(logging.WARNING), pytest.raises(PolicyError, match="action"):
            set_features(act(), default(action=None, actions=spec("actions")))
        assert "actions" in caplog.text


def test_the_policys_own_checks_come_last():
    with pytest.raises(PolicyError, match="camera"):
        set_features(act(), dataset(spec(STATE), spec("action")))
