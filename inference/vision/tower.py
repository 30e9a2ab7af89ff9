"""One call of the tower: uint8 frames of one region in, features of all tokens of a frame out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.vision.attention.choose import Backend
from inference.vision.blocks import Layer, Positions, block, embed, enter_global, joint_up, pool_region, separate_up, split_heads
from inference.vision.products import Operand, multiply, product
from inference.vision.region import Region, whole
from inference.vision.weights import TowerWeights, position_tables, tower_weights
from model.errors import InputError
from model.vision.encoder import VisionEncoder

COMPILE = ("off", "default", "autotune")
"""How layers are fused: not; by torch's compiler around the vendor's products; so that its own products (gelu inside) compete."""

Observer = Callable[[Operand, Layer], None]
_Function = Callable[..., Any]

_SIZES = 64
"""Shapes that the compiler may prepare for one function; its own limit is 8."""


@dataclass
class PaddingStates:
    """What a reference frame yields in the patches that are not computed."""

    region: Region
    """That is computed."""
    pooled: list[Tensor]
    """For each state that is kept, the last one first: [side, side, D], their contribution to each square."""
    borrowed: list[tuple[Tensor, Tensor]] | None
    """For each layer their keys and values [1, heads, n, head_dim]; None: frames attend to what is computed alone."""

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [*self.pooled, *(tensor for pair in self.borrowed or () for tensor in pair)]

    def clone(self) -> PaddingStates:
        """The same numbers in memory of its own."""
        borrowed = None if self.borrowed is None else [(k.clone(), v.clone()) for k, v in self.borrowed]
        return PaddingStates(self.region, [tensor.clone() for tensor in self.pooled], borrowed)


class PaddingSlot:
    """Padding states at addresses that captured calls hold; another clip's are copied in when their turn comes."""

    def __init__(self, states: PaddingStates, *, shared: bool) -> None:
        self.states = states if shared else states.clone()
        """Of the clip whose turn it is; `shared`: the only ones there will be, kept once."""
        self._owner = states

    def load(self, states: PaddingStates) -> None:
        """Makes them those of the calls that are launched from now on."""
        if states is not self._owner:
            torch._foreach_copy_(self.states.tensors(), states.tensors())
            self._owner = states


class Tower:
    """The arithmetic of `VisionEncoder` on prepared weights. Holds no stream and no buffer.

    Args:
        encoder: in its final dtype and on its device.
        fp8: products of the layers in 8 bits.
        backend: how attention is computed.
        compile_layers: one of `COMPILE`. Every size of a call is compiled once.
        joint_gelu: gelu inside the product before it (Hopper; elsewhere the same arithmetic in two kernels).
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        backend: Backend,
        *,
        fp8: bool = False,
        compile_layers: str = "off",
        joint_gelu: bool = False,
    ) -> None:
        self.encoder = encoder
        self.config = encoder.config
        self.fp8 = fp8
        self.weights: TowerWeights = tower_weights(encoder, fp8=fp8)
        vision = self.config.vision
        self.heads, self.eps = vision.num_attention_heads, vision.norm_eps
        self.pad = encoder.vision_model.pad_tokens
        self.pool_mode, self.stride = vision.pool_mode, 1 if vision.pool_mode == "none" else vision.pool_stride
        self.side = vision.grid_size // self.stride
        self._positions: dict[Region, Positions] = {}
        self._skipped: dict[Region, Tensor] = {}
        wrap = _compiler(compile_layers, backend.traceable)
        self._embed, self._enter, self._pool = wrap(embed), wrap(enter_global), wrap(pool_region)
        attend, heads, eps = backend.attend, self.heads, self.eps
        up = joint_up if joint_gelu else separate_up

        def one_block(
            x: Tensor, y: Operand, layer: Layer, borrowed: tuple[Tensor, Tensor] | None, rounded: bool
        ) -> tuple[Tensor, Operand]:
            return block(x, y, layer, borrowed, rounded, attend, up, heads, eps)

        self._block = wrap(one_block)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.first.device

    @property
    def dtype(self) -> torch.dtype:
        """In which everything but pixels and fp8 products is computed."""
        return self.weights.first.dtype

    def run(
        self,
        pixels: Tensor,
        region: Region,
        ids: Tensor | None = None,
        padding: PaddingStates | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Encodes frames.

        Args:
            pixels: uint8, or normalised, [F, C, rows * patch, columns * patch] of the region, on the device.
            ids: int64 [F] aspect-ratio ids; None: all frames are real ones.
            padding: features of the patches outside the region; needed if there are any.
            observe: called with the normalised input of every layer, and its weights.

        Returns:
            [F, P, H].
        """
        states = self.states(pixels, region, ids, padding, observe)
        parts = [self._pooled(state, region, None if padding is None else padding.pooled[i]) for i, state in enumerate(states)]
        # The joint tensor of all patches (787 MB at 32 frames of 560 pixels) is never made: states are pooled one by one.
        return product(torch.cat(parts, dim=-1), self.weights.projector)

    def states(
        self, pixels: Tensor, region: Region, ids: Tensor | None, padding: PaddingStates | None, observe: Observer | None
    ) -> list[Tensor]:
        """The states that become features, the last one first: [F, tokens, D] each."""
        w, vision = self.weights, self.config.vision
        borrowed = None if padding is None else padding.borrowed
        kept: dict[int, Tensor] = {}
        x, y = self._embed(
            pixels,
            w.patches,
            w.first,
            self._tables(region, ids),
            w.norm_pre,
            w.entry,
            vision.patch_size,
            self.pad,
            self.eps,
            self.fp8 and bool(w.local),
        )
        for number, layer in enumerate([*w.local, *w.global_]):
            if number < len(w.local) and number in vision.intermediate_layers_indices:
                kept[number] = x
            if number == len(w.local):
                x, y = self._leave_local(kept, x, y, ids)
            if observe is not None:
                observe(y, layer)
            # Behind the last local layer stands the post norm, whose output is the state that goes on: it is never rounded.
            rounded = self.fp8 and number != len(w.local) - 1
            x, y = self._block(x, y, layer, None if borrowed is None else borrowed[number], rounded)
        if not w.global_:
            x, y = self._leave_local(kept, x, y, ids)
        return [x, *(kept[index] for index in vision.intermediate_layers_indices)]

    @torch.inference_mode()
    def padding_states(self, frame: Tensor, region: Region, borrow: bool) -> PaddingStates:
        """What a frame yields in the patches outside a region.

        Args:
            frame: uint8 [1, C, S, S] on the device; nothing of it need be zero.
            borrow: keep keys and values too.
        """
        if region not in self._skipped:
            self._skipped[region] = region.skipped(self.config.vision.grid_size).to(self.device)
        skipped = self._skipped[region]
        borrowed: list[tuple[Tensor, Tensor]] = []

        def observe(y: Operand, layer: Layer) -> None:
            rows = Operand(y.rows[:, skipped], None if y.scale is None else y.scale[:, skipped])
            _, k, v = split_heads(multiply(rows, layer.qkv, self.dtype), self.heads)
            borrowed.append((k.contiguous(), v.contiguous()))

        states = self.states(frame, whole(self.config.vision), None, None, observe if borrow else None)
        return PaddingStates(region, [self._rest(state, region, skipped) for state in states], borrowed if borrow else None)

    def _rest(self, state: Tensor, region: Region, skipped: Tensor) -> Tensor:
        """[1, tokens, D] of the reference frame -> [side, side, D], with the computed patches taken out."""
        grid = self.config.vision.grid_size
        fill = float("-inf") if self.pool_mode == "max" else 0.0
        patches = torch.full_like(state[:, : 1 + grid * grid], fill)
        patches[:, skipped] = state[:, skipped]
        pooled = pool_region(patches, grid, grid, self.stride, self.side, self.pool_mode, None)
        rest: Tensor = pooled[0, 1:].unflatten(0, (self.side, self.side))
        return rest

    def _pooled(self, state: Tensor, region: Region, rest: Tensor | None) -> Tensor:
        pooled: Tensor = self._pool(state, region.rows, region.columns, self.stride, self.side, self.pool_mode, rest)
        return pooled

    def _leave_local(self, kept: dict[int, Tensor], x: Tensor, y: Operand, ids: Tensor | None) -> tuple[Tensor, Operand]:
        """Behind the last local layer its norm is the post norm, and the normed state goes on."""
        kept[len(self.weights.local)] = x
        tile = self.weights.after[1:2] if ids is None else self.weights.after[ids]
        if self.weights.global_entry is None:
            return y.rows + tile, y
        left: tuple[Tensor, Operand] = self._enter(y.rows, tile, self.weights.global_entry, self.eps, self.fp8)
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
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _SIZES)
    mode = "max-autotune-no-cudagraphs" if choice == "autotune" else None
    return lambda function: torch.compile(function, dynamic=False, fullgraph=traceable, mode=mode)
