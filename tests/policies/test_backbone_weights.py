"""ImageNet weights for a backbone: where they are looked for, and what is said when they cannot be had."""

import hashlib

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file
from torch import nn

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.policies import backbone_weights
from lerobot_ray.policies.backbone_weights import load_backbone_weights
from lerobot_ray.policies.resnet import FrozenBatchNorm2d, ResNet
from tests.hub_server import HubServer
from tests.policies.build import build
from tests.policies.cases import CASES

V1 = "ResNet18_Weights.IMAGENET1K_V1"


@pytest.fixture(scope="module")
def trained():
    """What torchvision's file holds: the network and its classifier."""
    torch.manual_seed(7)
    network = ResNet("resnet18")
    network.fc = nn.Linear(512, 1000)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_loaded(network, trained):
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, trained[name]), name


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.BatchNorm2d])
@pytest.mark.parametrize("has_counters", [True, False])
def test_from_a_file(trained, tmp_path, norm, has_counters):
    path = tmp_path / "resnet18.safetensors"
    save_file({k: v for k, v in trained.items() if has_counters or not k.endswith("num_batches_tracked")}, path)
    network = ResNet("resnet18", norm)
    load_backbone_weights(network, "resnet18", str(path))
    assert_loaded(network, trained)


def test_from_torchvisions_cache(trained, tmp_path, monkeypatch):
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    torch.save(trained, file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(PolicyError, match="is not the file torchvision published"):
        load_backbone_weights(ResNet("resnet18"), "resnet18", V1)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(backbone_weights.TORCHVISION_FILES, ("resnet18", "V1"), f"resnet18-{digest}.pth")
    file.rename(file.with_name(f"resnet18-{digest}.pth"))
    network = ResNet("resnet18")
    load_backbone_weights(network, "resnet18", V1)
    assert_loaded(network, trained)


@pytest.mark.hub
def test_from_the_hub(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    save_file(trained, tmp_path / "model.safetensors")
    with HubServer(tmp_path / "hub") as server:
        token = server.add_user("timm")
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", token)
        api = HfApi(endpoint=server.endpoint, token=token)
        api.create_repo("timm/resnet18.tv_in1k")
        api.upload_file(
            repo_id="timm/resnet18.tv_in1k",
            path_in_repo="model.safetensors",
            path_or_fileobj=tmp_path / "model.safetensors",
        )
        for policy, backbone in (
            (build(CASES["act_regression"], pretrained_backbone_weights=V1), "model.backbone"),
            (build(CASES["diffusion_shared"], pretrained_backbone_weights=V1), "diffusion.rgb_encoder.backbone"),
        ):
            first = next(policy.get_submodule(backbone).parameters())
            assert torch.equal(first, trained["conv1.weight"])


def test_what_cannot_be_had_is_said_with_file_address_and_flag(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(PolicyError) as caught:
        build(CASES["act_regression"], pretrained_backbone_weights=V1)
    for words in (
        f"{tmp_path}/hub/checkpoints/resnet18-f37072fd.pth",
        "timm/resnet18.tv_in1k",
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        f"policy.pretrained_backbone_weights={V1}",
        "null",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "weights", "words"),
    [
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V2", "Did you mean ResNet18_Weights.IMAGENET1K_V1"),
        ("resnet34", "ResNet18_Weights.IMAGENET1K_V1", "Did you mean ResNet34_Weights.IMAGENET1K_V1"),
        ("resnet18", "imagenet", "is not a set of weights for resnet18"),
        ("resnet18", "/nowhere/a.safetensors", "/nowhere/a.safetensors does not exist"),
        ("resnet18", "/nowhere/a.pth", "is a pickle"),
    ],
)
def test_names_that_are_none(backbone, weights, words):
    with pytest.raises(PolicyError, match=words):
        load_backbone_weights(ResNet("resnet18"), backbone, weights)


@pytest.mark.parametrize(
    ("backbone", "weights", "version"),
    [
        ("resnet50", "DEFAULT", "V2"),
        ("resnet50", "IMAGENET1K_V1", "V1"),
        ("resnet18", "ResNet18_Weights.DEFAULT", "V1"),
    ],
)
def test_torchvisions_names_are_understood(backbone, weights, version):
    assert backbone_weights._version(backbone, weights) == version


def test_a_file_of_another_network_is_refused(tmp_path, trained):
    save_file(trained, tmp_path / "a.safetensors")
    with pytest.raises(PolicyError, match="does not fit ResNet"):
        load_backbone_weights(ResNet("resnet34"), "resnet34", str(tmp_path / "a.safetensors"))


def test_a_file_name_stays_on_this_machine(tmp_path, trained):
    """LeRobot would look for a set of that name, so the saved config asks for none; the weights are saved anyway."""
    path = tmp_path / "resnet18.safetensors"
    save_file(trained, path)
    policy = build(CASES["act_regression"], pretrained_backbone_weights=str(path))
    assert torch.equal(policy.model.backbone.conv1.weight, trained["conv1.weight"])
    policy.save_pretrained(tmp_path / "policy")
    again = type(policy).from_pretrained(tmp_path / "policy")
    assert again.config.pretrained_backbone_weights is None
    assert policy.config.pretrained_backbone_weights == str(path)
    assert torch.equal(again.model.backbone.conv1.weight, policy.model.backbone.conv1.weight)
