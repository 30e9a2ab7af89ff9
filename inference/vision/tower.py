"""One call of the tower: uint8 frames of one region in, features of all tokens of a frame out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from inference.kernels import gelu_product
from inference.vision.attention.choose import Backend
from inference.vision.attention.keys import Keys
from inference.vision.between import FUSED, SEPARATE, with_joint_gelu
from inference.vision.blocks import Layer, Positions, block, embed, enter_global, pool_region
from inference.vision.padding import MergedTokens, merge_padding
from inference.vision.products import Operand, product
from inference.vision.region import Region, whole
from inference.vision.weights import TowerWeights, position_tables, tower_weights
from model.errors import InputError
from model.vision.encoder import VisionEncoder

COMPILE = ("off", "default", "autotune")
"""How layers are fused: not; by torch's compiler around the vendor's products; so that its own products (gelu inside) compete."""

_Function = Callable[..., Any]
_Maybe = TypeVar("_Maybe", Tensor, Tensor | None)

_SIZES = 128
"""Shapes that the compiler may prepare for one function; its own limit is 8, and a whole graph must not fail on it."""


class Tower:
    """The arithmetic of `VisionEncoder` on prepared weights. Holds no stream and no buffer.

    Args:
        encoder: in its final dtype and on its device.
        fp8: products of the layers in 8 bits.
        backend: how attention is computed.
        compile_layers: one of `COMPILE`. What is compiled for one frame serves calls of one frame, what is compiled for `full`
            frames those, and one more form all sizes between: a compiler takes seconds for each.
        full: frames in the largest call; None: every size is compiled by itself.
        joint_gelu: gelu inside the product before it (Hopper; elsewhere the same arithmetic in two kernels); None: where it is
            the faster way.
        fused: what lies between products in kernels of ours; None: on CUDA in 16 bits.
        repeat_keys: a token that stands for n patches of padding is attended to n times, not once.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        backend: Backend,
        *,
        fp8: bool = False,
        compile_layers: str = "off",
        joint_gelu: bool | None = None,
        fused: bool | None = None,
        repeat_keys: bool = True,
        full: int | None = None,
    ) -> None:
        self.encoder = encoder
        self.config = encoder.config
        self.fp8, self.repeat_keys = fp8, repeat_keys
        self.weights: TowerWeights = tower_weights(encoder, fp8=fp8)
        vision = self.config.vision
        self.heads, self.eps = vision.num_attention_heads, vision.norm_eps
        self.pad = encoder.vision_model.pad_tokens
        self.pool_mode, self.stride = vision.pool_mode, 1 if vision.pool_mode == "none" else vision.pool_stride
        self.side = vision.grid_size // self.stride
        self._positions: dict[Region, Positions] = {}
        self._merged: dict[Region, MergedTokens] = {}
        wrap = _compiler(compile_layers, backend.traceable)
        self._compiles = compile_layers != "off"
        self._full = full or 0
        self._embed, self._enter, self._pool = wrap(embed), wrap(enter_global), wrap(pool_region)
        attend, heads, eps = backend.attend_counted, self.heads, self.eps
        chosen = fused if fused is not None else self.device.type == "cuda" and self.dtype.itemsize == 2
        between = FUSED if chosen else SEPARATE
        inside = joint_gelu if joint_gelu is not None else chosen and not fp8 and gelu_product.gains(self.device, self.dtype)
        between = with_joint_gelu(between) if inside else between

        def one_block(x: Tensor, y: Operand, layer: Layer, keys: Keys | None, rounded: bool) -> tuple[Tensor, Operand]:
            return block(x, y, layer, keys, rounded, attend, between, heads, eps)

        self._block = wrap(one_block)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.first.device

    @property
    def dtype(self) -> torch.dtype:
        """In which everything but pixels and fp8 products is computed."""
        return self.weights.first.dtype

    @torch.inference_mode()
    def run(self, pixels: Tensor, region: Region, ids: Tensor | None = None) -> Tensor:
        """Encodes frames.

        Args:
            pixels: uint8, or normalised, [F, C, rows * patch, columns * patch] of the region, on the device.
            region: patches that are computed; in the others every frame is zero.
            ids: int64 [F] aspect-ratio ids, with the whole region only; None: all frames are real ones.

        Returns:
            [F, P, H].
        """
        if self._compiles:
            _allow_sizes()
        merged = self._merged_tokens(region)
        place, share = (None, None) if merged is None else (merged.place, merged.share)

        def pool(state: Tensor) -> Tensor:
            state = self._sizeless(state)
            pooled: Tensor = self._pool(state, region.rows, region.columns, self.stride, self.side, self.pool_mode, place, share)
            return pooled

        return product(torch.cat(self._states(pixels, region, ids, merged, pool), dim=-1), self.weights.projector)

    def _states(
        self,
        pixels: Tensor,
        region: Region,
        ids: Tensor | None,
        merged: MergedTokens | None,
        pool: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        """What becomes features, of the last state first: [F, P, D] each.

        States are pooled as they appear: one of all patches is 131 MB at 32 frames of 560 pixels, all six side by side 787 MB.
        """
        w, vision = self.weights, self.config.vision
        keys = merged.keys if merged is not None and self.repeat_keys else None
        kept: dict[int, Tensor] = {}
        x, y = self._embed(
            self._sizeless(pixels),
            w.pixels,
            w.patches,
            w.first,
            self._tables(region, ids),
            w.norm_pre,
            w.entry,
            vision.patch_size,
            self.pad,
            self.eps,
            self.fp8 and bool(w.local),
            None if merged is None else merged.states,
        )
        for number, layer in enumerate([*w.local, *w.global_]):
            if number <= len(w.local) and number in vision.intermediate_layers_indices:
                kept[number] = pool(x)
            if number == len(w.local):
                x, y = self._leave_local(y, ids)
            # Behind the last local layer stands the post norm, whose output is the state that goes on: it is never rounded.
            y = Operand(self._sizeless(y.rows), self._sizeless(y.scale))
            x, y = self._block(self._sizeless(x), y, layer, keys, self.fp8 and number != len(w.local) - 1)
        if not w.global_:
            if len(w.local) in vision.intermediate_layers_indices:
                kept[len(w.local)] = pool(x)
            x, y = self._leave_local(y, ids)
        return [pool(x), *(kept[index] for index in vision.intermediate_layers_indices)]

    def _sizeless(self, x: _Maybe) -> _Maybe:
        """The same tensor; what is compiled for it shall serve other numbers of frames too."""
        if x is not None and self._compiles and 1 < x.shape[0] < self._full:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        return x

    def _merged_tokens(self, region: Region) -> MergedTokens | None:
        """What stands for the patches outside a region; made once."""
        vision = self.config.vision
        if region == whole(vision):
            return None
        if region not in self._merged:
            self._merged[region] = merge_padding(region, vision, self._black_states(), self.pad)
        return self._merged[region]

    def _black_states(self) -> Tensor:
        """[1 + patches, D], what a frame of zeros is before the first layer: every frame's padding is that."""
        w, vision = self.weights, self.config.vision
        black = torch.zeros(1, vision.num_channels, vision.image_size, vision.image_size, dtype=torch.uint8, device=self.device)
        tables = self._tables(whole(vision), None)
        states, _ = embed(
            black,
            w.pixels,
            w.patches,
            w.first,
            tables,
            w.norm_pre,
            w.entry,
            vision.patch_size,
            0,
            self.eps,
            fp8=False,
            merged=None,
        )
        return states[0]

    def _leave_local(self, y: Operand, ids: Tensor | None) -> tuple[Tensor, Operand]:
        """Behind the last local layer its norm is the post norm, and the normed state goes on."""
        tile = self.weights.after[1:2] if ids is None else self.weights.after[ids]
        if self.weights.global_entry is None:
            return y.rows + tile, y
        left: tuple[Tensor, Operand] = self._enter(self._sizeless(y.rows), tile, self.weights.global_entry, self.eps, self.fp8)
        return left

    def _tables(self, region: Region, ids: Tensor | None) -> Positions:
        if ids is not None:
            return position_tables(self.encoder, region, ids)
        if region not in self._positions:
            self._positions[region] = position_tables(self.encoder, region, torch.ones(1, dtype=torch.int64, device=self.device))
        return self._positions[region]


def _compiler(choice: str, traceable: bool) -> Callable[[_Function], _Function]:
    if choice not in COMPILE:
        raise InputError(f"vision compile is {choice!r}; use one of {', '.join(COMPILE)}")
    if choice == "off":
        return lambda function: function
    mode = "max-autotune-no-cudagraphs" if choice == "autotune" else None
    return lambda function: torch.compile(function, dynamic=False, fullgraph=traceable, mode=mode)


def _allow_sizes() -> None:
    """Raise the compiler's limit for the thread that calls: settings of the compiler belong to threads."""
    limits: Any = torch._dynamo.config
    if limits.recompile_limit < _SIZES:
        limits.recompile_limit = _SIZES
