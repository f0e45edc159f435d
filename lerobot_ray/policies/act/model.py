"""The network of ACT: observations and a latent in, a chunk of actions out.

B batch, T chunk, S tokens, D width, A action, Z latent. Module names are the keys of the weights file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lerobot_ray.core.types import ACTION, OBS_ENV_STATE, OBS_STATE, Batch
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.act.transformer import Decoder, Encoder, image_positions, sequence_positions
from lerobot_ray.policies.resnet import FrozenBatchNorm2d, ResNet


class ACT(nn.Module):
    """See the module; `config` must have its features filled in."""

    vae_encoder_pos_enc: Tensor

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        state, environment, action = config.robot_state_feature, config.env_state_feature, config.action_feature
        assert action is not None, "validate_features comes first"
        width, action_size = config.dim_model, action.shape[0]
        self.chunk_size, self.latent_dim, self.cameras = (
            config.chunk_size,
            config.latent_dim,
            tuple(config.image_features),
        )
        self.has_state, self.has_environment = state is not None, environment is not None
        layer: dict[str, Any] = {
            "width": width,
            "heads": config.n_heads,
            "hidden": config.dim_feedforward,
            "dropout": config.dropout,
            "activation": config.feedforward_activation,
            "pre_norm": config.pre_norm,
        }
        if config.use_vae:
            self.vae_encoder = Encoder(config.n_vae_encoder_layers, **layer)
            self.vae_encoder_cls_embed = nn.Embedding(1, width)
            if state is not None:
                self.vae_encoder_robot_state_input_proj = nn.Linear(state.shape[0], width)
            self.vae_encoder_action_input_proj = nn.Linear(action_size, width)
            self.vae_encoder_latent_output_proj = nn.Linear(width, 2 * config.latent_dim)
            num_tokens = 1 + self.has_state + config.chunk_size
            self.register_buffer("vae_encoder_pos_enc", sequence_positions(num_tokens, width)[None])
        if self.cameras:
            self.backbone = ResNet(
                config.vision_backbone, FrozenBatchNorm2d, dilate_last=bool(config.replace_final_stride_with_dilation)
            )
        self.encoder = Encoder(config.n_encoder_layers, **layer)
        self.decoder = Decoder(config.n_decoder_layers, **layer)
        if state is not None:
            self.encoder_robot_state_input_proj = nn.Linear(state.shape[0], width)
        if environment is not None:
            self.encoder_env_state_input_proj = nn.Linear(environment.shape[0], width)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, width)
        if self.cameras:
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.out_channels, width, kernel_size=1)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + self.has_state + self.has_environment, width)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, width)
        self.action_head = nn.Linear(width, action_size)
        for parameter in chain(self.encoder.parameters(), self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def infer_latent(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, Z) of the latent, from the true actions."""
        tokens = [self.vae_encoder_cls_embed.weight[:, None].expand(-1, batch[ACTION].shape[0], -1)]
        if self.has_state:
            tokens.append(self.vae_encoder_robot_state_input_proj(batch[OBS_STATE])[None])
        is_pad = batch["action_is_pad"]
        never = is_pad.new_zeros(is_pad.shape[0], len(tokens))
        tokens.append(self.vae_encoder_action_input_proj(batch[ACTION]).transpose(0, 1))
        positions = self.vae_encoder_pos_enc.transpose(0, 1).to(self.vae_encoder_cls_embed.weight.dtype)
        encoded = self.vae_encoder(torch.cat(tokens), positions, torch.cat([never, is_pad], dim=1))
        mean, log_variance = self.vae_encoder_latent_output_proj(encoded[0]).chunk(2, dim=-1)
        return mean, log_variance

    def forward(self, batch: Batch, latent: Tensor | None) -> Tensor:
        """Actions (B, T, A) from the observations and a latent (B, Z); None is the latent's mean, zero."""
        reference = batch[OBS_STATE if self.has_state else OBS_ENV_STATE if self.has_environment else self.cameras[0]]
        batch_size = reference.shape[0]
        if latent is None:
            latent = reference.new_zeros(batch_size, self.latent_dim)
        tokens = [self.encoder_latent_input_proj(latent)]
        if self.has_state:
            tokens.append(self.encoder_robot_state_input_proj(batch[OBS_STATE]))
        if self.has_environment:
            tokens.append(self.encoder_env_state_input_proj(batch[OBS_ENV_STATE]))
        memory, positions = torch.stack(tokens), self.encoder_1d_feature_pos_embed.weight[:, None]
        if self.cameras:
            pixels, pixel_positions = self._encode_images([batch[camera] for camera in self.cameras])
            memory, positions = torch.cat([memory, *pixels]), torch.cat([positions, *pixel_positions])
        memory = self.encoder(memory, positions)
        queries = memory.new_zeros(self.chunk_size, batch_size, memory.shape[-1], dtype=positions.dtype)
        decoded = self.decoder(queries, self.decoder_pos_embed.weight[:, None], memory, positions)
        return self.action_head(decoded.transpose(0, 1))

    def _encode_images(self, images: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per camera the tokens (h·w, B, D) of its feature map and their positions (h·w, 1, D)."""
        pixels, positions = [], []
        same_size = all(image.shape == images[0].shape for image in images)
        # One pass over all cameras: the batch norm is frozen, so what shares a batch does not matter.
        for group in [images] if same_size else [[image] for image in images]:
            features = self.encoder_img_feat_input_proj(self.backbone(torch.cat(list(group))))
            height, width = features.shape[-2:]
            place = image_positions(height, width, features.shape[1], features.device)[:, None]
            place = place.to(self.encoder_1d_feature_pos_embed.weight.dtype)
            for camera in features.chunk(len(group)):
                pixels.append(camera.flatten(2).permute(2, 0, 1))
                positions.append(place)
        return pixels, positions
