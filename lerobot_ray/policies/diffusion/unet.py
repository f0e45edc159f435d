"""A U-Net over time (Janner et al., 2022): noisy actions in, prediction out, conditioned through FiLM in every block.

B batch, T horizon, A action, C channels, G condition. Inside, time is last: (B, C, T).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot_ray.policies.diffusion.config import DiffusionConfig

FINAL_GROUPS = 8
"""Groups of the last group norm, whatever `n_groups` says: LeRobot's networks are built so."""


class StepEmbedding(nn.Module):
    """Sinusoidal embedding of the denoising step: (B,) to (B, width), sines then cosines."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.width // 2
        exponent = torch.arange(half, device=timesteps.device) * -(math.log(10000) / (half - 1))
        angle = timesteps[:, None] * exponent.exp()
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ConvBlock(nn.Module):
    """Convolution over time, group norm, Mish."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(groups, out_channels),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks beside a shortcut; the condition shifts, and may scale, what is between them."""

    def __init__(
        self, in_channels: int, out_channels: int, condition: int, *, kernel_size: int, groups: int, scale: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = ConvBlock(in_channels, out_channels, kernel_size, groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, out_channels * (2 if scale else 1)))
        self.conv2 = ConvBlock(out_channels, out_channels, kernel_size, groups)
        is_wider = in_channels != out_channels
        self.residual_conv = nn.Conv1d(in_channels, out_channels, kernel_size=1) if is_wider else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(x)
        modulation = self.cond_encoder(condition)[..., None]
        if self.scale:
            scale, shift = modulation.chunk(2, dim=1)
            y = scale * y + shift
        else:
            y = y + modulation
        return self.conv2(y) + self.residual_conv(x)


class ConditionalUNet(nn.Module):
    """See the module. `down_dims` are the levels' channels; time is halved between them."""

    def __init__(self, config: DiffusionConfig, *, action_size: int, condition_size: int) -> None:
        super().__init__()
        embedding, dims = config.diffusion_step_embed_dim, list(config.down_dims)
        self.recompute = config.gradient_checkpointing
        self.diffusion_step_encoder = nn.Sequential(
            StepEmbedding(embedding),
            nn.Linear(embedding, embedding * 4),
            nn.Mish(),
            nn.Linear(embedding * 4, embedding),
        )

        def block(in_channels: int, out_channels: int) -> ResidualBlock:
            return ResidualBlock(
                in_channels,
                out_channels,
                embedding + condition_size,
                kernel_size=config.kernel_size,
                groups=config.n_groups,
                scale=config.use_film_scale_modulation,
            )

        levels = list(zip([action_size, *dims[:-1]], dims, strict=True))
        self.down_modules = nn.ModuleList()
        for position, (narrow, wide) in enumerate(levels):
            parts: list[nn.Module] = [block(narrow, wide), block(wide, wide)]
            is_last = position == len(levels) - 1
            parts.append(nn.Identity() if is_last else nn.Conv1d(wide, wide, 3, stride=2, padding=1))
            self.down_modules.append(nn.ModuleList(parts))
        self.mid_modules = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        self.up_modules = nn.ModuleList()
        for narrow, wide in reversed(levels[1:]):
            parts = [block(wide * 2, narrow), block(narrow, narrow)]
            parts.append(nn.ConvTranspose1d(narrow, narrow, 4, stride=2, padding=1))
            self.up_modules.append(nn.ModuleList(parts))
        self.final_conv = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, FINAL_GROUPS), nn.Conv1d(dims[0], action_size, 1)
        )

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """Noisy actions (B, T, A), denoising steps (B,), condition (B, G) to a prediction (B, T, A)."""
        embedding, *layers = self.diffusion_step_encoder.children()
        step = embedding(timesteps).to(condition.dtype)
        for layer in layers:
            step = layer(step)
        condition = torch.cat([step, condition], dim=-1)
        x = x.transpose(1, 2).to(condition.dtype)
        skips = []
        for level in self.down_modules:
            first, second, halve = level.children()
            x = self._run(second, self._run(first, x, condition), condition)
            skips.append(x)
            x = halve(x)
        for block in self.mid_modules:
            x = self._run(block, x, condition)
        for level in self.up_modules:
            first, second, double = level.children()
            x = torch.cat([x, skips.pop()], dim=1)
            x = double(self._run(second, self._run(first, x, condition), condition))
        return self.final_conv(x).transpose(1, 2)

    def _run(self, block: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
        if self.recompute and self.training:
            return checkpoint(block, x, condition, use_reentrant=False, preserve_rng_state=False)
        return block(x, condition)
