"""Pipelines: what goes through them, what does not, how they are saved."""

import copy
import json
import pickle

import pytest
import torch

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.processing import Pipeline, Step, register_step
from lerobot_ray.processing.batch import ToBatch
from lerobot_ray.processing.device import ToDevice
from lerobot_ray.processing.normalize import Normalizer
from lerobot_ray.processing.rename import RenameObservations

STATE = {"observation.state": PolicyFeature(FeatureType.STATE, (2,))}


def normalizer():
    return Normalizer(STATE, {"STATE": "MEAN_STD"}, {"observation.state": {"mean": [1.0, 2.0], "std": [2.0, 4.0]}})


def plain():
    return Pipeline([RenameObservations(), ToBatch(), ToDevice("cpu"), normalizer()], name="policy_preprocessor")


def test_the_stream_index_passes_and_unknown_keys_do_not():
    q = torch.tensor([5, 6])
    result = plain()({"stream_index": q, "frame_index": q, "note": ["a", "b"], "observation.state": torch.zeros(2, 2)})
    assert torch.equal(result["stream_index"], q)
    assert "frame_index" not in result
    assert "note" not in result


def test_absent_parts_have_lerobots_defaults():
    assert plain()({}) == {
        "action": None,
        "next.reward": 0.0,
        "next.done": False,
        "next.truncated": False,
        "info": {},
    }


def test_the_input_is_left_as_it_was():
    batch = {"observation.state": torch.ones(2, 2), "action": torch.ones(2, 3), "task": ["a", "b"]}
    before = copy.deepcopy(batch)
    plain()(batch)
    assert list(batch) == list(before)
    assert torch.equal(batch["observation.state"], before["observation.state"])


def test_padding_masks_of_observations_pass_unscaled_and_follow_their_key():
    pipeline = Pipeline([RenameObservations({"observation.state": "observation.pose"})], name="x")
    mask = torch.tensor([[True, False]])
    result = pipeline({"observation.state": torch.ones(1, 2), "observation.state_is_pad": mask, "action_is_pad": mask})
    assert "observation.state_is_pad" not in result
    assert result["observation.pose_is_pad"] is mask
    assert result["action_is_pad"] is mask


@pytest.mark.parametrize("value", [None, 3, [1]])
def test_only_batches_and_actions_are_taken(value):
    with pytest.raises(ProcessorError, match="takes a batch"):
        plain()(value)


def test_an_action_that_is_no_tensor_is_refused():
    with pytest.raises(ProcessorError, match="list"):
        plain()({"action": [1.0]})


def test_renaming_onto_a_name_that_is_taken_is_refused():
    swap = RenameObservations({"observation.a": "observation.b", "observation.b": "observation.a"})
    one, two = torch.ones(1), torch.zeros(1)
    result = Pipeline([swap], name="x")({"observation.a": one, "observation.b": two})
    assert (result["observation.b"], result["observation.a"]) == (one, two)
    with pytest.raises(ProcessorError, match=r"observation\.b"):
        Pipeline([RenameObservations({"observation.a": "observation.b"})], name="x")(
            {"observation.a": one, "observation.b": two}
        )
    with pytest.raises(ProcessorError, match="the same name"):
        RenameObservations({"observation.a": "observation.c", "observation.b": "observation.c"})


def test_a_pipeline_pickles_with_its_numbers():
    pipeline = plain()
    batch = {"observation.state": torch.tensor([[3.0, 4.0]])}
    expected = pipeline(batch)["observation.state"]
    again = pickle.loads(pickle.dumps(pipeline))
    assert torch.equal(again(batch)["observation.state"], expected)


def test_steps_without_state_write_no_state_file(tmp_path):
    Pipeline([ToBatch(), Normalizer(STATE, {})], name="policy_preprocessor").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["policy_preprocessor.json"]
    document = json.loads((tmp_path / "policy_preprocessor.json").read_text())
    assert all("state_file" not in step for step in document["steps"])


def test_state_files_are_as_readable_as_any_other(tmp_path):
    plain().save_pretrained(tmp_path)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_names_become_file_names(tmp_path):
    Pipeline([normalizer()], name="My Pipe/x").save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["my_pipe_x.json", "my_pipe_x_step_0_normalizer_processor.safetensors"]


def test_reset_reaches_every_step():
    class Counting(Step):
        resets = 0

        def reset(self):
            self.resets += 1

    steps = [Counting(), ToBatch(), Counting()]
    Pipeline(steps, name="x").reset()
    assert [steps[0].resets, steps[2].resets] == [1, 1]


def test_a_registered_name_is_not_taken_twice():
    with pytest.raises(ProcessorError, match="registered already"):

        @register_step("device_processor")
        class Mine(Step):
            pass


class TestDevice:
    def test_floating_point_tensors_change_precision_and_nothing_else_does(self):
        batch = {
            "observation.state": torch.ones(2, 2, dtype=torch.float64),
            "observation.image": torch.ones(2, 1, 2, 2, dtype=torch.uint8),
            "action": torch.ones(2, 3),
            "timestamp": torch.ones(2),
            "index": torch.ones(2, dtype=torch.int64),
            "action_is_pad": torch.zeros(2, 3, dtype=torch.bool),
            "task": ["a", "b"],
        }
        result = Pipeline([ToDevice("cpu", "bfloat16")], name="x")(batch)
        kinds = {key: value.dtype for key, value in result.items() if isinstance(value, torch.Tensor)}
        assert kinds == {
            "observation.state": torch.bfloat16,
            "observation.image": torch.uint8,
            "action": torch.bfloat16,
            "timestamp": torch.bfloat16,
            "index": torch.int64,
            "action_is_pad": torch.bool,
        }
        assert result["task"] == ["a", "b"]

    def test_a_file_names_the_kind_of_device_only(self):
        assert ToDevice("cpu:0").get_config() == {"device": "cpu", "float_dtype": None}

    @pytest.mark.parametrize(
        ("device", "dtype", "says"),
        [
            ("cuda", None, "not available here"),
            ("foo", None, "not the name of a device"),
            ("cpu", "bfloat", "bfloat16"),
        ],
    )
    def test_what_cannot_be_is_refused(self, device, dtype, says, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ProcessorError, match=says):
            ToDevice(device, dtype)
