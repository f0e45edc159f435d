"""ResNet 18 to 152 with torchvision's parameter names, in plain torch (He et al., 2015).

Why our own: torchvision ships compiled parts that must match torch's build, and policies need only this much of it.
Two things are done for speed. On accelerators activations run channels-last; parameters stay contiguous, because FSDP
shards no other kind. Frozen batch norm is folded into the convolution before it where that is less work than a pass
over the activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot_ray.core.errors import PolicyError, nearest

NormLayer = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ResNetShape:
    """What tells one ResNet from another."""

    blocks: tuple[int, int, int, int]
    """Residual blocks per stage."""
    bottleneck: bool
    """Blocks of 1×1, 3×3, 1×1 convolutions, four times as wide at the end; else of two 3×3 ones."""

    @property
    def out_channels(self) -> int:
        """Channels of the last feature map."""
        return 2048 if self.bottleneck else 512


SHAPES = {
    "resnet18": ResNetShape((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetShape((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetShape((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetShape((3, 4, 23, 3), bottleneck=True),
    "resnet152": ResNetShape((3, 8, 36, 3), bottleneck=True),
}


def resnet_shape(name: str) -> ResNetShape:
    """The shape of the ResNet called `name`, or a PolicyError that names the nearest one."""
    if name not in SHAPES:
        near = nearest(name, SHAPES)
        hint = f"Did you mean {near}?" if near else f"Known: {', '.join(SHAPES)}."
        raise PolicyError(f"policy.vision_backbone={name} is not a ResNet this package has. {hint}")
    return SHAPES[name]


class FrozenBatchNorm2d(nn.Module):
    """Batch norm that never learns: fixed statistics and affine parameters, all of them buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """This norm as y = x · scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # files of trainable batch norm have it
        super()._load_from_state_dict(state_dict, prefix, *args)


def convolve_and_norm(x: Tensor, convolution: nn.Module, norm: nn.Module) -> Tensor:
    """norm(convolution(x)); a frozen norm may be folded into the convolution's weights."""
    # The exact type: an adapter (LoRA) in the convolution's place has a forward of its own, which must run.
    if isinstance(norm, FrozenBatchNorm2d) and type(convolution) is nn.Conv2d and _folding_pays(x, convolution):
        scale, shift = norm.scale_and_shift()
        weight = convolution.weight * scale[:, None, None, None]
        weight, shift = weight.to(convolution.weight.dtype), shift.to(convolution.weight.dtype)
        return F.conv2d(x, weight, shift, convolution.stride, convolution.padding, convolution.dilation)
    return norm(convolution(x))


def _folding_pays(x: Tensor, convolution: nn.Conv2d) -> bool:
    """Whether the convolution has more outputs to scale than weights."""
    outputs = x.shape[0] * (x.shape[2] // convolution.stride[0]) * (x.shape[3] // convolution.stride[1])
    return outputs >= convolution.in_channels * convolution.kernel_size[0] * convolution.kernel_size[1]


def in_fast_layout(x: Tensor) -> Tensor:
    """Images in the memory layout that convolutions on this device are fastest in."""
    return x if x.device.type == "cpu" else x.contiguous(memory_format=torch.channels_last)


class Downsample(nn.Sequential):
    """The shortcut where a block changes resolution or width: 1×1 convolution, norm."""

    def forward(self, x: Tensor) -> Tensor:
        return convolve_and_norm(x, self[0], self[1])


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, norm: NormLayer, *, stride: int, dilation: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        if dilation > 1:
            raise PolicyError("policy.replace_final_stride_with_dilation needs resnet50, resnet101 or resnet152.")
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norm(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = convolve_and_norm(x, self.conv1, self.bn1).relu_()
        y = convolve_and_norm(y, self.conv2, self.bn2)
        return y.add_(shortcut).relu_()


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; the stride is in the middle one."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, norm: NormLayer, *, stride: int, dilation: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = norm(width * self.expansion)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = convolve_and_norm(x, self.conv1, self.bn1).relu_()
        y = convolve_and_norm(y, self.conv2, self.bn2).relu_()
        y = convolve_and_norm(y, self.conv3, self.bn3)
        return y.add_(shortcut).relu_()


class ResNet(nn.Module):
    """The convolutional part of a ResNet: images (B, 3, H, W) to the last feature map (B, C, H/32, W/32).

    `dilate_last` keeps the last stage at H/16 with dilated convolutions in place of its stride.
    """

    def __init__(self, name: str, norm: NormLayer = nn.BatchNorm2d, *, dilate_last: bool = False) -> None:
        super().__init__()
        shape = resnet_shape(name)
        self.out_channels = shape.out_channels
        self.total_stride = 16 if dilate_last else 32
        block = Bottleneck if shape.bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        channels = 64
        for number, (width, count) in enumerate(zip((64, 128, 256, 512), shape.blocks, strict=True), start=1):
            dilated = dilate_last and number == 4
            stride = 1 if number == 1 or dilated else 2
            blocks: list[nn.Module] = []
            for position in range(count):
                first = position == 0
                # In a dilated stage the first block still sees the undilated grid; those after it are spread out.
                blocks.append(
                    block(
                        channels,
                        width,
                        norm,
                        stride=stride if first else 1,
                        dilation=2 if dilated and not first else 1,
                        downsample=_downsample(channels, width * block.expansion, norm, stride) if first else None,
                    )
                )
                channels = width * block.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        nn.Linear(channels, 1000)  # unused: torchvision's classifier draws here, and one seed should give one network
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = in_fast_layout(x)
        x = convolve_and_norm(x, self.conv1, self.bn1).relu_()
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module


def feature_map_hw(height: int, width: int, *, dilate_last: bool = False) -> tuple[int, int]:
    """Height and width of the last feature map: every halving rounds up."""
    for _ in range(4 if dilate_last else 5):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def _downsample(in_channels: int, out_channels: int, norm: NormLayer, stride: int) -> Downsample | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return Downsample(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), norm(out_channels))


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
