"""The normaliser beyond its numbers, which test_goldens compares: precision, memory layout, compilation, bad input."""

import numpy as np
import pytest
import torch

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot_ray.processing.normalize import Normalizer, Unnormalizer, as_feature, as_norm_map
from lerobot_ray.processing.statistics import NEEDED, check_statistics, renamed_stats, with_imagenet_stats

STATE, ACTION, CAMERA = "observation.state", "action", "observation.images.front"
FEATURES = {
    STATE: PolicyFeature(FeatureType.STATE, (2,)),
    ACTION: PolicyFeature(FeatureType.ACTION, (2,)),
    CAMERA: PolicyFeature(FeatureType.VISUAL, (3, 4, 6)),
}
MEAN_STD = dict.fromkeys(("STATE", "ACTION", "VISUAL"), "MEAN_STD")
STATS = {
    STATE: {"mean": np.array([1.0, -2.0]), "std": np.array([0.5, 3.0])},
    ACTION: {"mean": [0.0, 0.5], "std": [2.0, 1.0]},
    CAMERA: {"mean": np.full((3, 1, 1), 0.5), "std": np.full((3, 1, 1), 0.25)},
}
RANGE = {"min": [-1.0, 3.0], "max": [2.0, 3.0], "q01": [-1.0, 0.0], "q99": [1.0, 2.0], "q10": [0, 0], "q90": [1, 1]}


def transition(**observation):
    return {"observation": {key.replace("__", "."): value for key, value in observation.items()}, "action": None}


@pytest.mark.parametrize("mode", list(NormalizationMode))
def test_unnormalising_undoes_normalising(mode):
    stats = {ACTION: {**STATS[ACTION], **RANGE}}
    action = torch.randn(5, 3, 2, dtype=torch.float64)
    scaled = Normalizer(FEATURES, {"ACTION": mode}, stats)({"observation": None, "action": action})
    back = Unnormalizer(FEATURES, {"ACTION": mode}, stats)(scaled)["action"]
    torch.testing.assert_close(back, action, rtol=0, atol=1e-6)  # a mean-std round trip loses eps


def test_whole_numbers_are_normalised_as_floats():
    done = Normalizer(FEATURES, MEAN_STD, STATS)(transition(observation__state=torch.tensor([[2, 1]])))
    torch.testing.assert_close(done["observation"][STATE], torch.tensor([[2.0, 1.0]]))


def test_images_keep_their_memory_format():
    image = torch.rand(2, 3, 4, 6).to(memory_format=torch.channels_last)
    done = Normalizer(FEATURES, MEAN_STD, STATS)({"observation": {CAMERA: image}, "action": None})
    assert done["observation"][CAMERA].is_contiguous(memory_format=torch.channels_last)


def test_gradients_flow_through():
    x = torch.randn(3, 2, requires_grad=True)
    for step in (Normalizer(FEATURES, MEAN_STD, STATS), Unnormalizer(FEATURES, MEAN_STD, STATS)):
        (gradient,) = torch.autograd.grad(step({"observation": None, "action": x})["action"].sum(), x)
        assert torch.isfinite(gradient).all()


def test_it_compiles_whole():
    step = Normalizer(FEATURES, MEAN_STD | {"ACTION": "MIN_MAX"}, {**STATS, ACTION: RANGE})
    compiled = torch.compile(
        lambda state, action: step({"observation": {STATE: state}, "action": action}),
        fullgraph=True,
        backend="aot_eager",
    )
    state, action = torch.randn(4, 2), torch.randn(4, 3, 2)
    expected = step({"observation": {STATE: state}, "action": action})
    done = compiled(state, action)
    assert torch.equal(done["observation"][STATE], expected["observation"][STATE])
    assert torch.equal(done["action"], expected["action"])


def test_statistics_of_all_features_are_kept():
    stats = {**STATS, "timestamp": {"mean": [0.5], "count": [9]}}
    state = Normalizer(FEATURES, MEAN_STD, stats).state_dict()
    assert {key for key in state if key.startswith("timestamp")} == {"timestamp.mean", "timestamp.count"}
    assert all(value.dtype == torch.float32 for value in state.values())


def test_counts_of_cameras_have_the_cameras_shape_where_it_is_a_feature():
    stats = {CAMERA: {"count": np.array([7])}}
    assert Normalizer(FEATURES, {}, stats).state_dict()[f"{CAMERA}.count"].shape == (1, 1, 1)
    only_action = {ACTION: FEATURES[ACTION]}
    assert Unnormalizer(only_action, {}, stats).state_dict()[f"{CAMERA}.count"].shape == (1,)


def test_a_state_with_only_what_the_modes_need_is_enough():
    step = Normalizer(FEATURES, MEAN_STD)
    step.load_state_dict({f"{STATE}.mean": torch.ones(2), f"{STATE}.std": torch.ones(2)})
    done = step(transition(observation__state=torch.ones(1, 2)))
    assert torch.equal(done["observation"][STATE], torch.zeros(1, 2))


def test_new_statistics_replace_the_constants_already_made():
    step = Normalizer(FEATURES, MEAN_STD, STATS)
    before = step({"observation": None, "action": torch.ones(1, 2)})["action"]
    step.load_state_dict({"action.mean": torch.zeros(2), "action.std": torch.ones(2)})
    assert not torch.equal(step({"observation": None, "action": torch.ones(1, 2)})["action"], before)


def test_a_mode_whose_statistics_are_half_there_is_refused():
    step = Normalizer(FEATURES, {"STATE": "QUANTILES"}, {STATE: {"q01": [0.0, 0.0], "mean": [0.0, 0.0]}})
    with pytest.raises(ProcessorError, match=r"observation\.state .*QUANTILES.* q99"):
        step(transition(observation__state=torch.ones(1, 2)))


def test_a_tensor_of_another_size_is_refused():
    with pytest.raises(ProcessorError, match=r"observation\.state has shape \[1, 5\]"):
        Normalizer(FEATURES, MEAN_STD, STATS)(transition(observation__state=torch.ones(1, 5)))


@pytest.mark.parametrize("value", [{"type": "STATE"}, {"type": "ARM", "shape": [2]}, "STATE", None])
def test_what_is_no_feature_is_refused(value):
    with pytest.raises(ProcessorError, match=r"observation\.x"):
        as_feature(value, "observation.x")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ProcessorError, match=r"MEDIAN.*MIN_MAX"):
        as_norm_map({"STATE": "MEDIAN"})


class TestCheck:
    norm_map = as_norm_map(MEAN_STD)

    def check(self, stats, norm_map=None):
        check_statistics(FEATURES, norm_map or self.norm_map, stats)

    def test_whole_statistics_pass(self):
        self.check(STATS)

    def test_every_problem_is_named_at_once(self):
        stats = {ACTION: {"mean": [0.0]}, CAMERA: STATS[CAMERA]}
        with pytest.raises(ProcessorError, match=r"observation\.state .*lacks mean and std; action .*lacks std"):
            self.check(stats)

    def test_no_statistics_at_all(self):
        with pytest.raises(ProcessorError, match=r"meta/stats\.json"):
            self.check(None)
        self.check(None, as_norm_map(dict.fromkeys(MEAN_STD, "IDENTITY")))

    def test_a_wrong_size(self):
        with pytest.raises(ProcessorError, match=r"action\.std has shape \[3\], the feature has \[2\]"):
            self.check({**STATS, ACTION: {"mean": [0.0, 0.0], "std": [1.0, 1.0, 1.0]}})

    def test_not_a_number(self):
        with pytest.raises(ProcessorError, match=r"action\.mean holds NaN"):
            self.check({**STATS, ACTION: {"mean": [float("nan"), 0.0], "std": [1.0, 1.0]}})

    def test_no_numbers(self):
        with pytest.raises(ProcessorError, match=r"action\.mean is not a number"):
            self.check({**STATS, ACTION: {"mean": "zero", "std": [1.0, 1.0]}})

    def test_scalars_and_flat_camera_statistics_fit(self):
        self.check({**STATS, ACTION: {"mean": 0.0, "std": 1.0}, CAMERA: {"mean": [0.5] * 3, "std": [0.2] * 3}})

    def test_every_mode_says_what_it_needs(self):
        assert set(NEEDED) == set(NormalizationMode)


def test_imagenet_statistics_replace_mean_and_std_of_the_cameras_given():
    stats = {CAMERA: {"mean": np.zeros((3, 1, 1)), "max": np.ones((3, 1, 1))}, "observation.images.depth": {"mean": 1}}
    result = with_imagenet_stats(stats, [CAMERA])
    assert result[CAMERA]["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(result[CAMERA]["mean"].ravel(), [0.485, 0.456, 0.406])
    np.testing.assert_allclose(result[CAMERA]["std"].ravel(), [0.229, 0.224, 0.225])
    assert np.array_equal(result[CAMERA]["max"], stats[CAMERA]["max"])
    assert result["observation.images.depth"] == {"mean": 1}
    assert np.array_equal(stats[CAMERA]["mean"], np.zeros((3, 1, 1)))


def test_statistics_follow_a_renamed_camera():
    stats = {"a": {"mean": 1}, "b": {"mean": 2}, "c": {"mean": 3}}
    assert renamed_stats(stats, {"a": "b", "b": "a"}) == {"b": {"mean": 1}, "a": {"mean": 2}, "c": {"mean": 3}}
    assert renamed_stats(stats, {"a": "d"}) == {"d": {"mean": 1}, "b": {"mean": 2}, "c": {"mean": 3}}
