"""Which processors, and whose statistics, a training run uses (the table in `processing/run.py`)."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot_ray.processing import Pipeline, load_processors, make_default_processors, processors_for_run
from lerobot_ray.processing.batch import ToBatch

STATE, ACTION, FRONT = "observation.state", "action", "observation.images.front"


@dataclasses.dataclass
class Config:
    type: str = "act"
    device: str | None = "cpu"
    mode: str = "MEAN_STD"
    camera: str = FRONT

    @property
    def normalization_mapping(self):
        return dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode(self.mode))

    @property
    def input_features(self):
        return {
            self.camera: PolicyFeature(FeatureType.VISUAL, (3, 4, 6)),
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
        }

    @property
    def output_features(self):
        return {ACTION: PolicyFeature(FeatureType.ACTION, (2,))}


def stats(value, camera=FRONT):
    names = ("mean", "std", "min", "max")

    def of(*shape):
        return {name: np.full(shape, value + i, dtype=np.float32) for i, name in enumerate(names)}

    return {camera: of(3, 1, 1), STATE: of(2), ACTION: of(2), "timestamp": of(1)}


def means(pipelines, key=ACTION):
    """The mean of `key` in the normaliser and in the unnormaliser."""
    steps = (pipelines[0].step("normalizer_processor"), pipelines[1].step("unnormalizer_processor"))
    return [float(step.state_dict()[f"{key}.mean"].flatten()[0]) for step in steps]


@pytest.fixture
def saved(tmp_path):
    for pipeline in processors_for_run(Config(), stats(1.0)):
        pipeline.save_pretrained(tmp_path)
    return tmp_path


def test_a_fresh_policy_has_the_datasets_statistics():
    pipelines = processors_for_run(Config(), stats(1.0), device="cpu")
    assert means(pipelines) == [1.0, 1.0]
    assert [type(step).__name__ for step in pipelines[0]] == ["RenameObservations", "ToBatch", "ToDevice", "Normalizer"]
    assert [type(step).__name__ for step in pipelines[1]] == ["Unnormalizer", "ToDevice"]


def test_a_pretrained_policy_gets_the_new_datasets_statistics_and_modes(saved):
    pipelines = processors_for_run(Config(mode="MIN_MAX"), stats(5.0), saved)
    assert means(pipelines) == [5.0, 5.0]
    for pipeline, name in zip(pipelines, ("normalizer_processor", "unnormalizer_processor"), strict=True):
        assert pipeline.step(name).get_config()["norm_map"]["ACTION"] == "MIN_MAX"


def test_a_resumed_run_keeps_the_checkpoints_statistics(saved):
    pipelines = processors_for_run(Config(), stats(5.0), saved, resume=True)
    assert means(pipelines) == [1.0, 1.0]
    assert means(processors_for_run(Config(), None, saved, resume=True)) == [1.0, 1.0]


def test_features_follow_this_run(saved):
    side = "observation.images.side"
    pipelines = processors_for_run(Config(camera=side), stats(5.0, side), saved)
    assert list(pipelines[0].step("normalizer_processor").features) == [side, STATE, ACTION]
    assert list(pipelines[1].step("unnormalizer_processor").features) == [ACTION]


def test_steps_added_to_the_saved_pipeline_stay(saved):
    pre, _ = load_processors(saved)
    Pipeline([*pre.steps, ToBatch()], name=pre.name).save_pretrained(saved)
    assert len(processors_for_run(Config(), stats(5.0), saved)[0]) == 5


def test_statistics_follow_a_renamed_camera(saved):
    side = "observation.images.side"
    for path in (None, saved):
        pre, _ = processors_for_run(Config(), stats(5.0, side), path, rename_map={side: FRONT})
        image = pre({side: torch.full((1, 3, 4, 6), 11.0)})[FRONT]
        torch.testing.assert_close(image, torch.ones(1, 3, 4, 6))  # (11 - 5) / 6


def test_a_resumed_run_keeps_the_renaming_unless_another_is_given(saved):
    side = "observation.images.side"
    for pipeline in processors_for_run(Config(), stats(5.0, side), rename_map={side: FRONT}):
        pipeline.save_pretrained(saved)
    pre, _ = processors_for_run(Config(), None, saved, resume=True)
    assert pre.step("rename_observations_processor").rename_map == {side: FRONT}
    other = {"observation.images.top": FRONT}
    pre, _ = processors_for_run(Config(), None, saved, resume=True, rename_map=other)
    assert pre.step("rename_observations_processor").rename_map == other


def test_actions_come_back_to_the_host_whatever_the_device(saved):
    for path in (None, saved):
        pre, post = processors_for_run(Config(), stats(1.0), path, device="meta")
        assert pre.step("device_processor").get_config()["device"] == "meta"
        assert post.step("device_processor").get_config()["device"] == "cpu"


def test_missing_statistics_are_refused_where_lerobot_would_pass_the_feature_unscaled(saved):
    incomplete = stats(1.0)
    del incomplete[STATE]
    for path in (None, saved):
        for given in (incomplete, None):
            with pytest.raises(ProcessorError, match=r"observation\.state .*lacks mean and std"):
                processors_for_run(Config(), given, path)


def test_a_checkpoint_without_a_features_statistics_resumes_as_it_was_and_says_so(saved, caplog):
    side = "observation.images.side"  # what LeRobot leaves behind after training with a rename_map
    for pipeline in load_processors(saved):
        for step in pipeline:
            if hasattr(step, "stats"):
                step.stats[side] = step.stats.pop(FRONT)
        pipeline.save_pretrained(saved)
    with caplog.at_level(logging.WARNING):
        pre, _ = processors_for_run(Config(), stats(5.0), saved, resume=True)
    assert FRONT in caplog.text
    image = torch.rand(1, 3, 4, 6)
    assert torch.equal(pre({FRONT: image})[FRONT], image)


def test_resuming_needs_a_checkpoint():
    with pytest.raises(ProcessorError, match="pretrained_model"):
        processors_for_run(Config(), stats(1.0), resume=True)


def test_a_type_nobody_knows_gets_the_plain_pipelines_or_its_own():
    assert len(make_default_processors(Config(type="mine"), stats(1.0))[0]) == 4

    class Own(Config):
        def make_processors(self, stats):
            return Pipeline([], name="policy_preprocessor"), Pipeline([], name="policy_postprocessor")

    assert len(make_default_processors(Own(type="mine"), stats(1.0))[0]) == 0


def test_a_type_whose_steps_only_lerobot_has_says_so():
    with pytest.raises(ProcessorError, match=r"groot.*lerobot"):
        make_default_processors(Config(type="groot"), stats(1.0))


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_native_configs_go_in_as_they_are(kind):
    config = PolicyConfig.get_choice_class(kind)(device="cpu")
    config.input_features, config.output_features = Config().input_features, Config().output_features
    pre, post = processors_for_run(config, stats(1.0))
    batch = pre({FRONT: torch.rand(2, 3, 4, 6), STATE: torch.rand(2, 2), ACTION: torch.rand(2, 5, 2)})
    torch.testing.assert_close(post(batch[ACTION]), post(batch)[ACTION])
