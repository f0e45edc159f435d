"""Saved pipelines read back: overrides, steps nobody knows, files that are not whole, repositories on a Hub."""

import json
import shutil

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.processing import Pipeline, Step, load_pipeline, load_processors
from lerobot_ray.processing.device import ToDevice
from lerobot_ray.processing.normalize import Normalizer
from lerobot_ray.processing.tokenize import Tokenize
from tests.hub_server import HubServer
from tests.processing.cases import GOLDENS, build_tokenizer

PRE, POST = "policy_preprocessor", "policy_postprocessor"
STATE_FILE = "policy_preprocessor_step_3_normalizer_processor.safetensors"


class Doubling(Step):
    """A step of somebody else's: not registered, with a state."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor, self.seen = factor, torch.zeros(1)

    def __call__(self, transition):
        return {**transition, "action": transition["action"] * self.factor + self.seen}

    def get_config(self):
        return {"factor": self.factor}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


@pytest.fixture
def folder(tmp_path):
    """A policy folder of LeRobot's to damage."""
    return shutil.copytree(GOLDENS / "act", tmp_path / "act")


def edit(folder, change):
    path = folder / f"{PRE}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_overrides_replace_single_values(folder):
    pipeline = load_pipeline(folder, PRE, overrides={"device_processor": {"float_dtype": "float64"}})
    assert pipeline.step("device_processor").get_config() == {"device": "cpu", "float_dtype": "float64"}


def test_statistics_given_win_over_saved_ones(folder):
    stats = {"action": {"mean": [7.0] * 4, "std": [1.0] * 4}}
    step = load_pipeline(folder, PRE, overrides={"normalizer_processor": {"stats": stats}}).step("normalizer_processor")
    assert set(step.state_dict()) == {"action.mean", "action.std"}
    saved = load_pipeline(folder, PRE, overrides={"normalizer_processor": {"stats": None}}).step("normalizer_processor")
    assert len(saved.state_dict()) == len(load_file(folder / STATE_FILE))


def test_features_and_modes_can_be_replaced_and_statistics_stay(folder):
    change = {"features": {}, "norm_map": {"STATE": "MIN_MAX"}}
    step = load_pipeline(folder, PRE, overrides={"normalizer_processor": change}).step("normalizer_processor")
    assert step.get_config() == {"eps": 1e-8, **change}
    assert "action.mean" in step.state_dict()


def test_an_override_for_a_step_that_is_not_there_names_those_that_are(folder):
    with pytest.raises(ProcessorError, match=r"normaliser_processor.*Did you mean normalizer_processor\?.*to_batch"):
        load_pipeline(folder, PRE, overrides={"normaliser_processor": {}})


def test_an_override_for_an_argument_that_is_not_there(folder):
    with pytest.raises(ProcessorError, match=r"device_processor: .*'speed'"):
        load_pipeline(folder, PRE, overrides={"device_processor": {"speed": 3}})


def test_all_unknown_steps_are_named(folder):
    def change(document):
        document["steps"].insert(0, {"registry_name": "device_processsor", "config": {}})
        document["steps"].insert(0, {"class": "nowhere.to.BeFound", "config": {}})
        document["steps"].insert(0, {"config": {}})

    edit(folder, change)
    expected = r"neither registry_name nor class.*nowhere\.to\.BeFound.*did you mean device_processor"
    with pytest.raises(ProcessorError, match=expected):
        load_pipeline(folder, PRE)


def test_steps_of_lerobot_named_by_class_are_ours(folder):
    def change(document):
        document["steps"][2] = {"class": "lerobot.processor.device_processor.DeviceProcessorStep", "config": {}}
        old = document["steps"][3]
        del old["registry_name"]
        old["class"] = "lerobot.processor.normalize_processor.NormalizerProcessorStep"

    edit(folder, change)
    pipeline = load_pipeline(folder, PRE, overrides={"NormalizerProcessorStep": {"eps": 0.5}})
    assert isinstance(pipeline.steps[2], ToDevice)
    assert isinstance(pipeline.steps[3], Normalizer)
    assert pipeline.steps[3].eps == 0.5
    assert load_pipeline(folder, PRE, overrides={"normalizer_processor": {"eps": 0.25}}).steps[3].eps == 0.25


def test_a_step_of_another_package_is_imported_by_its_class_path(tmp_path):
    Doubling.__module__ = __name__
    step = Doubling(3.0)
    step.seen = torch.ones(1)
    Pipeline([step], name=POST).save_pretrained(tmp_path)
    assert (tmp_path / f"{POST}_step_0.safetensors").is_file()
    assert json.loads((tmp_path / f"{POST}.json").read_text())["steps"][0]["class"] == f"{__name__}.Doubling"
    again = load_pipeline(tmp_path, POST)
    assert again(torch.ones(2)).tolist() == [4.0, 4.0]
    assert load_pipeline(tmp_path, POST, overrides={"Doubling": {"factor": 5.0}})(torch.ones(1)).tolist() == [6.0]


def test_the_json_file_itself_can_be_given(folder):
    assert len(Pipeline.from_pretrained(folder / f"{PRE}.json", PRE)) == 4


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / f"{PRE}.json").unlink(), "has no policy_preprocessor.json"),
        (lambda f: (f / f"{PRE}.json").write_text("{"), "is not JSON"),
        (lambda f: (f / f"{PRE}.json").write_text('{"type": "act"}'), "does not describe a pipeline"),
        (lambda f: (f / STATE_FILE).unlink(), f"has no {STATE_FILE}"),
        (lambda f: (f / STATE_FILE).write_bytes(b"torn"), "not a whole safetensors file"),
        (lambda f: edit(f, lambda d: d["steps"][0]["config"].update(extra=1)), "'extra'"),
        (lambda f: edit(f, lambda d: d["steps"][3]["config"].update(norm_map={"STATE": "X"})), "Modes are"),
        (lambda f: edit(f, lambda d: d["steps"][2]["config"].update(device="foo")), "not the name of a device"),
    ],
)
def test_damaged_folders(folder, damage, says):
    damage(folder)
    with pytest.raises(ProcessorError, match=says):
        load_pipeline(folder, PRE)


def test_a_folder_from_before_processors_is_told_apart(folder):
    (folder / "config.json").write_text("{}")
    (folder / f"{PRE}.json").unlink()
    with pytest.raises(ProcessorError, match="migrate_policy_normalization"):
        load_pipeline(folder, PRE)


def test_a_folder_that_is_not_there():
    with pytest.raises(ProcessorError, match="neither a folder nor"):
        load_pipeline("/no/such/folder", PRE)


def test_a_tokenizer_saved_beside_the_pipeline_is_used(tmp_path):
    build_tokenizer(tmp_path / "tokenizer")
    Pipeline([Tokenize(str(tmp_path / "tokenizer"))], name=PRE).save_pretrained(tmp_path)
    path = tmp_path / f"{PRE}.json"
    document = json.loads(path.read_text())
    document["steps"][0]["config"]["tokenizer_name"] = "gated/elsewhere"
    document["steps"][0]["artifacts"] = {"tokenizer": "tokenizer"}
    path.write_text(json.dumps(document))
    step = load_pipeline(tmp_path, PRE).steps[0]
    assert step.get_config()["tokenizer_name"] == "gated/elsewhere"
    assert step.tokenizer("red")["input_ids"] == [7]


def test_a_hand_written_state_with_mean_and_std_alone_is_enough(folder):
    saved = load_file(folder / STATE_FILE)
    needed = {key: value for key, value in saved.items() if key.endswith((".mean", ".std"))}
    save_file(needed, folder / STATE_FILE)
    batch = {"observation.state": torch.ones(1, 4)}
    assert torch.equal(
        load_pipeline(folder, PRE)(batch)["observation.state"],
        load_pipeline(GOLDENS / "act", PRE)(batch)["observation.state"],
    )


@pytest.mark.hub
class TestHub:
    @pytest.fixture
    def hub(self, tmp_path, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        with HubServer(tmp_path / "hub") as server:
            monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
            api = HfApi(endpoint=server.endpoint, token=server.add_user("alice"))
            api.create_repo("alice/act")
            api.upload_folder(repo_id="alice/act", folder_path=GOLDENS / "act")
            api.create_tag("alice/act", tag="act-files")
            api.upload_folder(repo_id="alice/act", folder_path=GOLDENS / "diffusion")
            yield server

    def test_a_repository_at_a_revision(self, hub):
        new, _ = load_processors("alice/act")
        old, _ = load_processors("alice/act", revision="act-files")
        modes = [pipeline.step("normalizer_processor").get_config()["norm_map"]["STATE"] for pipeline in (new, old)]
        assert modes == ["MIN_MAX", "MEAN_STD"]
        assert old.step("normalizer_processor").state_dict()["action.mean"].shape == (4,)

    def test_what_is_not_there(self, hub):
        with pytest.raises(ProcessorError, match=r"alice/act has no nothing\.json"):
            load_pipeline("alice/act", "nothing")
        with pytest.raises(ProcessorError, match="alice/other cannot be read"):
            load_pipeline("alice/other", PRE)
        with pytest.raises(ProcessorError, match="alice/act at v9 cannot be read"):
            load_pipeline("alice/act", PRE, revision="v9")

    def test_offline_and_nothing_cached(self, hub, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ProcessorError, match="cannot be reached"):
            load_pipeline("alice/unseen", PRE)
