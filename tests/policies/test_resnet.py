"""The ResNets: shapes of all five, the frozen norm folded away, channels-last, dilation."""

import pytest
import torch
from torch import nn

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.policies.resnet import (
    SHAPES,
    FrozenBatchNorm2d,
    ResNet,
    _folding_pays,
    convolve_and_norm,
    feature_map_hw,
    in_fast_layout,
)

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
"""What torchvision documents, its classifier included."""


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_are_torchvisions(name):
    with torch.device("meta"):
        network = ResNet(name)
        classifier = nn.Linear(network.out_channels, 1000)
    count = sum(p.numel() for module in (network, classifier) for p in module.parameters())
    assert count == PARAMETERS[name]
    with torch.device("meta"):
        assert network(torch.empty(2, 3, 70, 100)).shape == (2, network.out_channels, *feature_map_hw(70, 100))


def test_dilation_keeps_the_last_stage_fine():
    with torch.device("meta"):
        network = ResNet("resnet50", dilate_last=True)
        assert network(torch.empty(1, 3, 70, 100)).shape[-2:] == feature_map_hw(70, 100, dilate_last=True) == (5, 7)
    assert network.layer4[0].conv2.dilation == (1, 1)
    assert network.layer4[1].conv2.dilation == (2, 2)
    with pytest.raises(PolicyError, match="needs resnet50, resnet101 or resnet152"):
        ResNet("resnet18", dilate_last=True)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(PolicyError, match=r"resnet-50 is not a ResNet .* Did you mean resnet50"):
        ResNet("resnet-50")


@pytest.fixture
def frozen():
    torch.manual_seed(0)
    network = ResNet("resnet18", FrozenBatchNorm2d)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network


def test_a_frozen_norm_is_batch_norm_in_eval_mode(frozen):
    norm = frozen.layer1[0].bn1
    twin = nn.BatchNorm2d(64).eval()
    twin.load_state_dict(norm.state_dict() | {"num_batches_tracked": torch.tensor(0)})
    x = torch.randn(2, 64, 5, 7)
    torch.testing.assert_close(norm(x), twin(x))
    assert not list(norm.parameters())


@pytest.mark.parametrize("side", [60, 9])
def test_folding_changes_neither_output_nor_gradients(frozen, side):
    norm, convolution = frozen.layer1[0].bn1, frozen.layer1[0].conv1
    x = torch.randn(2, 64, side, 8)
    assert _folding_pays(x, convolution) == (side == 60)
    folded = convolve_and_norm(x, convolution, norm)
    (gradient,) = torch.autograd.grad(folded.square().sum(), convolution.weight)
    apart = norm(convolution(x))
    (expected,) = torch.autograd.grad(apart.square().sum(), convolution.weight)
    torch.testing.assert_close(folded, apart, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-2)


def test_a_replaced_convolution_is_called(frozen):
    """An adapter puts its own module in the place of a convolution; folding must not pass it by."""

    class Adapter(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    adapter = Adapter(64, 64, 3, padding=1, bias=False)
    norm = frozen.layer1[0].bn1
    x = torch.randn(1, 64, 4, 4)
    torch.testing.assert_close(convolve_and_norm(x, adapter, norm), norm(adapter(x)))


def test_images_are_channels_last_on_accelerators_and_weights_contiguous_everywhere(frozen):
    assert in_fast_layout(torch.empty(2, 3, 8, 8, device="meta")).is_contiguous(memory_format=torch.channels_last)
    image = torch.empty(2, 3, 8, 8)
    assert in_fast_layout(image) is image
    assert all(parameter.is_contiguous() for parameter in frozen.parameters())


def test_both_layouts_give_the_same(frozen):
    x = torch.randn(2, 3, 64, 64)
    y = frozen(x)
    last = frozen(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, y, rtol=1e-4, atol=1e-4)


def test_files_of_trainable_batch_norm_load_into_a_frozen_one(frozen):
    frozen.load_state_dict(ResNet("resnet18").state_dict())
    assert not any(key.endswith("num_batches_tracked") for key in frozen.state_dict())


def test_half_precision_weights_with_single_precision_statistics(frozen):
    """Under FSDP's mixed precision the weights come in bfloat16, the buffers do not."""
    frozen.conv1.to(torch.bfloat16)
    x = torch.randn(1, 3, 32, 32, dtype=torch.bfloat16)
    assert convolve_and_norm(x, frozen.conv1, frozen.bn1).dtype == torch.bfloat16
