"""Saving and loading a policy: the folder, the Hub, and everything that can be wrong with either."""

import json
import logging

import pytest
import torch
from huggingface_hub import HfApi

from lerobot_ray.core.errors import PolicyError, StorageError
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.act.policy import ACTPolicy
from lerobot_ray.policies.diffusion.policy import DiffusionPolicy
from lerobot_ray.policies.protocol import resolve_device
from lerobot_ray.policies.registry import build_policy
from tests.hub_server import HubServer
from tests.policies.build import build, config_of
from tests.policies.cases import BATCH, CASES

SMALL = {"act": "act_state_only", "diffusion": "diffusion_linear_three_levels"}


@pytest.fixture(params=SMALL)
def case(request):
    return CASES[SMALL[request.param]]


@pytest.fixture
def saved(tmp_path):
    policy = build(CASES["act_state_only"])
    policy.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy", policy


def test_a_saved_policy_comes_back_the_same(case, tmp_path):
    policy = build(case)
    policy.save_pretrained(tmp_path / "policy")
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == ["config.json", "model.safetensors"]
    again = type(policy).from_pretrained(tmp_path / "policy")
    assert again.config == policy.config
    assert not again.training
    for name, tensor in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    torch.manual_seed(0)
    action = policy.select_action(case.observation(0))
    torch.manual_seed(0)
    assert torch.equal(again.select_action(case.observation(0)), action)


def test_given_weights_replace_the_policys_own(saved, tmp_path):
    _, policy = saved
    averaged = {name: torch.zeros_like(tensor) for name, tensor in policy.state_dict().items()}
    policy.save_pretrained(tmp_path / "averaged", state_dict=averaged)
    again = ACTPolicy.from_pretrained(tmp_path / "averaged")
    assert all(not tensor.any() for tensor in again.state_dict().values())


def test_a_checkpoints_folder_or_runs_is_found(tmp_path):
    policy = build(CASES["act_state_only"])
    policy.save_pretrained(tmp_path / "checkpoints" / "000010" / "pretrained_model")
    (tmp_path / "checkpoints" / "last").symlink_to("000010")
    for folder in (tmp_path, tmp_path / "checkpoints" / "last"):
        assert ACTPolicy.from_pretrained(folder).config == policy.config


def test_a_given_config_wins(saved):
    folder, policy = saved
    config = config_of(CASES["act_state_only"], n_action_steps=2)
    again = ACTPolicy.from_pretrained(folder, config=config)
    assert again.config is config
    assert policy.config.n_action_steps != 2


def test_loading_needs_no_imagenet_weights(tmp_path):
    """The config keeps its wish for them; the weights that come instead are the file's."""
    policy = build(CASES["act_regression"])
    policy.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["pretrained_backbone_weights"] = "ResNet18_Weights.IMAGENET1K_V1"
    (tmp_path / "config.json").write_text(json.dumps(values))
    again = ACTPolicy.from_pretrained(tmp_path, local_files_only=True)
    assert again.config.pretrained_backbone_weights == "ResNet18_Weights.IMAGENET1K_V1"
    assert torch.equal(again.model.backbone.conv1.weight, policy.model.backbone.conv1.weight)


def test_the_wrong_class_is_named(saved, tmp_path):
    folder, policy = saved
    with pytest.raises(PolicyError, match="describes a policy of type act, not diffusion"):
        DiffusionPolicy.from_pretrained(folder)
    with pytest.raises(PolicyError, match="DiffusionPolicy is built from DiffusionConfig, not ACTConfig"):
        DiffusionPolicy(policy.config)


def edit(folder, **changes):
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "actt"}, "actt.*Did you mean act"),
        ({"type": "nothing_like_it"}, "not a known kind of policy"),
        ({"type": "pi05"}, r"lerobot-ray\[lerobot\]"),
        ({"chunk_sise": 3}, "chunk_sise.*Did you mean chunk_size"),
        ({"chunk_size": "many"}, "expected a whole number, got 'many'"),
        ({"n_obs_steps": 2}, "n_obs_steps=2"),
        ({"vision_backbone": "resnet19"}, None),
        ({"dim_model": 48}, "48"),
    ],
)
def test_a_bad_config_is_one_clear_error(saved, changes, words):
    folder, _ = saved
    edit(folder, **changes)
    if words is None:  # no camera, no backbone
        ACTPolicy.from_pretrained(folder)
        return
    with pytest.raises(PolicyError, match=words):
        ACTPolicy.from_pretrained(folder)


def test_weights_that_do_not_fit_are_refused_when_training(saved):
    """`from_pretrained` is as lenient as LeRobot's unless told otherwise; `build_policy` is told."""
    folder, _ = saved
    config = config_of(CASES["act_state_only"], pretrained_path=str(folder), n_decoder_layers=2)
    with pytest.raises(PolicyError, match=r"missing: model\.decoder\.layers\.1"):
        build_policy(config)
    with pytest.raises(PolicyError, match="missing"):
        ACTPolicy.from_pretrained(folder, config=config, strict=True)
    assert len(ACTPolicy.from_pretrained(folder, config=config).model.decoder.layers) == 2


def test_missing_folders_and_files_are_named(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(PolicyError, match="nowhere does not exist"):
        ACTPolicy.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(PolicyError, match="is not a folder"):
        ACTPolicy.from_pretrained(folder / "config.json")
    with pytest.raises(PolicyError, match=r"config\.json is not there"):
        ACTPolicy.from_pretrained(tmp_path)
    (folder / "model.safetensors").rename(folder / "model.bin")
    with pytest.raises(PolicyError, match="is a pickle"):
        ACTPolicy.from_pretrained(folder)


@pytest.mark.parametrize("missing", ["observation.state", "observation.environment_state", "action", "action_is_pad"])
def test_a_batch_that_lacks_something_is_named(missing):
    case = CASES["act_state_only"]
    batch = {key: value for key, value in case.batch(0).items() if key != missing}
    with pytest.raises(PolicyError, match=f"ACT needs {missing} in the batch, which has"):
        build(case)(batch)


def test_an_unavailable_device_is_replaced(caplog):
    assert resolve_device("cpu").type == "cpu"
    with caplog.at_level(logging.WARNING):
        device = resolve_device("xpu:3" if not torch.xpu.is_available() else "mps")
    assert device.type in ("cpu", "cuda", "mps")
    assert "is not available here" in caplog.text


def test_seeds_reach_every_policy():
    policy = build(CASES["act_state_only"]).train()
    batch = CASES["act_state_only"].batch(0) | {"stream_index": torch.arange(BATCH)}
    losses = []
    for seed in (0, 0, 1):
        policy.noise_seed = seed
        losses.append(policy(batch)[0].item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.hub
def test_a_policy_on_the_hub(saved, tmp_path, monkeypatch):
    folder, policy = saved
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    with HubServer(tmp_path / "hub") as server:
        token = server.add_user("alice")
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)  # read when asked, not when imported
        monkeypatch.setenv("HF_TOKEN", token)
        api = HfApi(endpoint=server.endpoint, token=token)
        api.create_repo("alice/act")
        api.upload_folder(repo_id="alice/act", folder_path=folder)
        api.create_tag("alice/act", tag="step-5")
        api.upload_file(repo_id="alice/act", path_in_repo="config.json", path_or_fileobj=b"{}")

        cache = {"cache_dir": tmp_path / "cache"}
        again = ACTPolicy.from_pretrained("alice/act", revision="step-5", **cache)
        assert torch.equal(again.model.action_head.weight, policy.model.action_head.weight)
        with pytest.raises(PolicyError, match="does not name a policy type"):
            ACTPolicy.from_pretrained("alice/act", **cache)
        with pytest.raises(StorageError, match="alice/act has no revision step-6"):
            ACTPolicy.from_pretrained("alice/act", revision="step-6", **cache)
        with pytest.raises(StorageError, match="alice/other is not a model on the Hub"):
            ACTPolicy.from_pretrained("alice/other", **cache)
        api.delete_file("model.safetensors", repo_id="alice/act", revision="main")
        api.upload_file(
            repo_id="alice/act", path_in_repo="config.json", path_or_fileobj=(folder / "config.json").read_bytes()
        )
        with pytest.raises(StorageError, match=r"alice/act has no file model\.safetensors"):
            ACTPolicy.from_pretrained("alice/act", **cache)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="not in the local cache and the Hub cannot be reached"):
        ACTPolicy.from_pretrained("alice/third", **cache)


def test_a_name_that_is_no_repository():
    with pytest.raises(PolicyError, match="is neither a folder here nor a Hub repository"):
        ACTPolicy.from_pretrained("not//a//name", config=ACTConfig())
