"""Images to features: crop, ResNet, and the expected position of each of a few learned keypoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.policies.backbone_weights import load_backbone_weights
from lerobot_ray.policies.diffusion.config import DiffusionConfig
from lerobot_ray.policies.resnet import NormLayer, ResNet, feature_map_hw, in_fast_layout

CHANNELS_PER_GROUP = 16
"""Of the group norms that replace batch norms in the backbone."""


class Backbone(nn.Sequential):
    """A ResNet without its head as a sequence, which is how the weights file numbers its parts."""

    def __init__(self, resnet: ResNet) -> None:
        stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        super().__init__(resnet.conv1, resnet.bn1, nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1), *stages)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(in_fast_layout(x))


class SpatialSoftmax(nn.Module):
    """Keypoints (Finn et al., 2016): a softmax over pixels per learned map, and the position it expects."""

    pos_grid: Tensor

    def __init__(self, channels: int, height: int, width: int, num_keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, num_keypoints, kernel_size=1)
        rows = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width, dtype=torch.float64)[None, :].expand(height, width)
        self.register_buffer("pos_grid", torch.stack([columns, rows], dim=-1).reshape(-1, 2).float())

    def forward(self, features: Tensor) -> Tensor:
        """Feature maps (B, C, h, w) to positions (B, K, 2), x then y, each from -1 to 1."""
        attention = self.nets(features).flatten(2).softmax(dim=-1)
        return attention @ self.pos_grid.to(attention.dtype)


class ImageEncoder(nn.Module):
    """Images (N, C, H, W) to features (N, 2K)."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        norm: NormLayer = _group_norm if config.use_group_norm else nn.BatchNorm2d
        resnet = ResNet(config.vision_backbone, norm)
        if config.pretrained_backbone_weights is not None:
            load_backbone_weights(resnet, config.vision_backbone, config.pretrained_backbone_weights)
        self.backbone = Backbone(resnet)
        _, height, width = next(iter(config.image_features.values())).shape
        self.image_hw = (height, width)
        self.resize_hw, self.crop_hw = config.resize_shape, config.crop_shape
        self.input_hw = config.crop_shape or config.resize_shape or self.image_hw
        self.pool = SpatialSoftmax(
            resnet.out_channels, *feature_map_hw(*self.input_hw), config.spatial_softmax_num_keypoints
        )
        self.feature_size = config.spatial_softmax_num_keypoints * 2
        self.out = nn.Linear(self.feature_size, self.feature_size)
        self.crop_is_random = config.crop_is_random

    def forward(self, images: Tensor, crop_words: Tensor | None = None) -> Tensor:
        """`crop_words` (N, 2) are random words that place each crop; None: torch's generator places one for all."""
        if self.resize_hw is not None:
            images = F.interpolate(images, size=list(self.resize_hw), mode="bilinear", antialias=True)
        if self.crop_hw is not None:
            images = self._crop(images, crop_words)
        if images.shape[-2:] != self.input_hw:
            raise PolicyError(
                f"images are {tuple(images.shape[-2:])} where policy.input_features says {self.image_hw}. Give the "
                f"policy the size it was built for, or set policy.resize_shape."
            )
        return self.out(self.pool(self.backbone(images)).flatten(1)).relu()

    def _crop(self, images: Tensor, words: Tensor | None) -> Tensor:
        assert self.crop_hw is not None
        height, width = self.crop_hw
        free = (images.shape[-2] - height, images.shape[-1] - width)
        if not (self.training and self.crop_is_random):
            top, left = round(free[0] / 2), round(free[1] / 2)
            return images[..., top : top + height, left : left + width]
        if free == (0, 0):
            return images
        if words is None:
            corner = torch.cat([torch.randint(0, space + 1, size=(1,)) for space in free])  # on the host, as LeRobot
            row, column = corner.to(images.device, non_blocking=True).unbind()
            return images[..., _span(row, height)[:, None], _span(column, width)]
        place = torch.arange(images.shape[0], device=images.device)[:, None, None]
        rows = _span((words[:, :1] * (free[0] + 1)) >> 32, height)[:, :, None]
        columns = _span((words[:, 1:] * (free[1] + 1)) >> 32, width)[:, None, :]
        return images[place, :, rows, columns].permute(0, 3, 1, 2)  # channels-last already


def _span(first: Tensor, length: int) -> Tensor:
    return first + torch.arange(length, device=first.device)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)
