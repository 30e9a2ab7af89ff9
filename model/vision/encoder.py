"""Frames in, cross-attention source out: tower, pooling, projector."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VideoMllamaConfig, VisionConfig
from model.errors import InputError
from model.vision.embeddings import GatedPositionalEmbedding, TilePositionalEmbedding
from model.vision.layers import VisionTransformer
from model.vision.pooling import pool_patches, pool_state

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise_pixels(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [F, 3, S, S] -> normalised [F, 3, S, S]; a float tensor counts as normalised and is only cast."""
    if frames.is_floating_point():
        return frames.to(dtype)
    mean, std = _mean_and_deviation(frames.device)
    return frames.float().div_(255).sub_(mean).div_(std).to(dtype)


@functools.cache
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    """[3, 1, 1] each, made once for a device: the host waits for all that the device has to do before it copies two lists."""
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return mean, std


class VisionTower(nn.Module):
    """The ViT: local layers, gated global layers, and the kept intermediate states beside the last one."""

    def __init__(self, config: VisionConfig, keep_pad_tokens: bool = True) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.pad_tokens = config.num_padded_positions - config.num_positions if keep_pad_tokens else 0
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.patch_embedding = nn.Conv2d(config.num_channels, width, config.patch_size, config.patch_size, bias=False)
        self.gated_positional_embedding = GatedPositionalEmbedding(config)
        self.pre_tile_positional_embedding = TilePositionalEmbedding(config)
        self.post_tile_positional_embedding = TilePositionalEmbedding(config)
        self.layernorm_pre = nn.LayerNorm(width, eps=config.norm_eps)
        self.layernorm_post = nn.LayerNorm(width, eps=config.norm_eps)
        self.transformer = VisionTransformer(config, config.num_hidden_layers, gated=False)
        self.global_transformer = VisionTransformer(config, config.num_global_layers, gated=True)

    def embed_patches(self, pixels: Tensor) -> Tensor:
        """Normalised [F, C, S, S] -> [F, patches, D], row-major; the strided convolution as one matrix product."""
        grid, patch, channels = self.config.grid_size, self.config.patch_size, self.config.num_channels
        cut = pixels.reshape(-1, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
        cut = cut.reshape(-1, grid * grid, channels * patch * patch)
        weight: Tensor = self.patch_embedding.weight
        return F.linear(cut, weight.flatten(1))

    def forward(self, pixels: Tensor, aspect_ratio_ids: Tensor, pool: tuple[str, int] | None = None) -> Tensor:
        """Normalised pixels [F, 3, S, S], aspect_ratio_ids int64 [F] -> [F, 1 + patches, output_dim].

        The last axis holds the final state, then for every channel its value in each kept state. With `pool`, a mode and its
        stride, the patch grid of each state is pooled before they are joined, which moves less: [F, P, output_dim].
        """
        config, states = self.config, self.states(pixels, aspect_ratio_ids)
        if pool is not None:
            final, *kept = (pool_state(state, config.grid_size, *pool) for state in states)
        else:
            final, *kept = (state[:, : config.num_positions] for state in states)
        return torch.cat([final, torch.stack(kept, dim=-1).flatten(2)], dim=-1) if kept else final

    def states(self, pixels: Tensor, aspect_ratio_ids: Tensor) -> list[Tensor]:
        """The final state and the kept ones, [F, rows, D] each; rows behind the patches are padding."""
        x = self.pre_tile_positional_embedding(self.embed_patches(pixels), aspect_ratio_ids)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.layernorm_pre(self.gated_positional_embedding(x, aspect_ratio_ids))
        if self.pad_tokens:
            # The zero rows take part as keys and values, as they did when the published weights were trained.
            x = F.pad(x, (0, 0, 0, self.pad_tokens))
        x, kept = self.transformer(x, keep=self.config.intermediate_layers_indices)
        x = self.post_tile_positional_embedding(self.layernorm_post(x), aspect_ratio_ids)
        x, _ = self.global_transformer(x)
        return [x, *kept]


class VisionEncoder(nn.Module):
    """Tower, pooling and projector, named as in the published checkpoints.

    Children: `vision_model` (the tower) and `multi_modal_projector`. Training and inference use this one module.
    """

    def __init__(self, config: VideoMllamaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTower(config.vision, config.switches.vit_keep_pad_tokens)
        self.multi_modal_projector = nn.Linear(config.vision.output_dim, config.text.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, in which the tower computes."""
        weight: Tensor = self.multi_modal_projector.weight
        dtype: torch.dtype = weight.dtype
        return dtype

    def tower(self, frames: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        """Features of every patch, before pooling.

        Args:
            frames: uint8 [F, 3, S, S], or floating point and already normalised.
            aspect_ratio_ids: int64 [F]; 1 for a real frame, 0 for a padding frame.

        Returns:
            [F, 1 + patches, output_dim].

        Raises:
            InputError: frames of another size than the model's.
        """
        features: Tensor = self.vision_model(self._normalised(frames), aspect_ratio_ids)
        return features

    def _normalised(self, frames: Tensor) -> Tensor:
        vision = self.config.vision
        expected = (vision.num_channels, vision.image_size, vision.image_size)
        if frames.dim() != 4 or tuple(frames.shape[1:]) != expected:
            raise InputError(
                f"frames have shape {list(frames.shape)}; the model takes [F, {', '.join(map(str, expected))}]: "
                "fit every frame to vision.image_size first"
            )
        return normalise_pixels(frames, self.dtype)

    def pooled(self, frames: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        """Features of every patch, pooled: arguments and errors as for `tower` -> [F, P, output_dim]."""
        vision = self.config.vision
        pool = (vision.pool_mode, vision.pool_stride)
        features: Tensor = self.vision_model(self._normalised(frames), aspect_ratio_ids, pool=pool)
        return features

    def project_pooled(self, pooled: Tensor) -> Tensor:
        """[F, P, output_dim] -> [F, P, H]."""
        states: Tensor = self.multi_modal_projector(pooled)
        return states

    def project(self, vision_out: Tensor) -> Tensor:
        """Pools the patch grid and maps to the text width: [F, 1 + patches, output_dim] -> [F, P, H]."""
        vision = self.config.vision
        return self.project_pooled(pool_patches(vision_out, vision.grid_size, vision.pool_mode, vision.pool_stride))

    def forward(self, frames: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        """frames [F, 3, S, S], aspect_ratio_ids int64 [F] -> cross-attention source [F, P, H]."""
        return self.project_pooled(self.pooled(frames, aspect_ratio_ids))
