"""A stand-in for Transformer Engine, which needs CUDA: its modules' names, parameters and functions in plain torch.

megatron-core's wrappers of them, and everything above, are the real ones. What the products and scopes do is written down:
every product notes whether it ran inside an fp8 scope, and every scope that would move on the history of delayed scaling does.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import mappings
from torch import Tensor, nn


class State:
    """The process-wide fp8 state."""

    enabled = False
    depth = 0
    recipe: Any = None
    first = False
    moved_on = 0
    """How often histories were moved on."""


class autocast:
    """The scope: the outermost enabled one moves histories on when it is left."""

    def __init__(self, enabled: bool = True, recipe: Any = None, **_: Any) -> None:
        self.enabled, self.recipe = enabled, recipe

    def __enter__(self) -> None:
        self.before = (State.enabled, State.recipe, State.first)
        State.enabled, State.recipe = self.enabled, self.recipe
        if State.depth == 0:
            State.first = True
        State.depth += 1

    def __exit__(self, *_: object) -> None:
        State.enabled, State.recipe, State.first = self.before
        State.depth -= 1
        if self.enabled and State.depth == 0:
            State.moved_on += 1


class FP8GlobalStateManager:
    @staticmethod
    def is_fp8_enabled() -> bool:
        return State.enabled

    @staticmethod
    def is_first_fp8_module() -> bool:
        first, State.first = State.first, False
        return first


class Linear(nn.Module):
    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, parallel_mode: str | None = None, tp_size: int = 1,
        params_dtype: torch.dtype = torch.float32, sequence_parallel: bool = False, device: Any = None, tp_group: Any = None,
        **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tp_group = tp_group
        self.parallel_mode, self.tp_size, self.sequence_parallel = parallel_mode, tp_size, sequence_parallel
        self.in_features = in_features // (tp_size if parallel_mode == "row" else 1)
        self.out_features = out_features // (tp_size if parallel_mode == "column" else 1)
        self.use_bias = bias
        self.fp8_meta: dict[str, Any] = {}
        self.ran: list[Any] = []
        """Of every call: the recipe of the fp8 scope, None outside of one."""
        self.first = False
        """Whether it took the mark of a scope's first module, whose backward pass moves on histories of gradients."""
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features, dtype=params_dtype, device="cpu"))
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.out_features, dtype=params_dtype))
        nn.init.normal_(self.weight, std=0.02)

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        assert state is None or state.numel() == 0

    def forward(self, x: Tensor, is_first_microbatch: bool | None = None) -> Tensor:
        self.ran.append(State.recipe if State.enabled else None)
        self.first |= State.enabled and FP8GlobalStateManager.is_first_fp8_module()
        if State.enabled and (x.shape[:-1].numel() % 8 or x.shape[-1] % 16):
            raise ValueError("fp8 does not take these sizes")
        if self.parallel_mode == "column" and self.tp_size > 1:
            gather = mappings.gather_from_sequence_parallel_region
            x = (
                gather(x, group=self.tp_group)
                if self.sequence_parallel
                else mappings.copy_to_tensor_model_parallel_region(x, self.tp_group)
            )
        y = F.linear(x, self.weight, self.bias if self.use_bias else None)
        if self.parallel_mode == "row" and self.tp_size > 1:
            scatter, add = mappings.reduce_scatter_to_sequence_parallel_region, mappings.reduce_from_tensor_model_parallel_region
            y = scatter(y, group=self.tp_group) if self.sequence_parallel else add(y, self.tp_group)
        return y


class LayerNormLinear(Linear):
    def __init__(self, in_features: int, out_features: int, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(in_features, out_features, **kwargs)
        self.eps = eps
        self.layer_norm_weight = nn.Parameter(torch.ones(in_features, dtype=self.weight.dtype))
        self.layer_norm_weight.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor, is_first_microbatch: bool | None = None) -> Tensor:
        return super().forward(F.rms_norm(x, (x.shape[-1],), self.layer_norm_weight, self.eps))


class DotProductAttention(nn.Module):
    def __init__(self, num_attention_heads: int, kv_channels: int, cp_group: Any = None, cp_stream: Any = None, **_: Any) -> None:
        super().__init__()
        assert cp_group is None or cp_stream is not None
        self.cp_group = cp_group

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        assert state is None

    def _load_from_state_dict(self, *args: Any) -> None:
        """Its own missing state is no error, as in the real one."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, attn_mask_type: str, qkv_format: str,
        cu_seqlens_q: Tensor, max_seqlen_q: int, **_: Any,
    ) -> Tensor:  # fmt: skip
        assert (attn_mask_type, qkv_format, mask) == ("padding_causal", "thd", None)
        bounds = cu_seqlens_q.tolist()
        assert cu_seqlens_q.dtype == torch.int32 and max_seqlen_q == max(b - a for a, b in pairwise(bounds))
        if self.cp_group is not None:
            return _ring(q, k, v, bounds, self.cp_group)
        assert bounds[-1] == len(q)
        parts = []
        for a, b in pairwise(bounds):
            qkv = (t[a:b].transpose(0, 1)[None] for t in (q, k, v))
            parts.append(F.scaled_dot_product_attention(*qkv, is_causal=True, enable_gqa=True)[0].transpose(0, 1))
        return torch.cat(parts).flatten(1)


def _ring(q: Tensor, k: Tensor, v: Tensor, bounds: list[int], group: Any) -> Tensor:
    """What the real one expects under context parallelism: bounds of whole samples, each cut into 2 * ranks equal chunks, of
    which a rank has the one of its number and the one as far from the end; all keys are gathered instead of sent round."""
    ranks, own = group.size(), group.rank()
    assert all((b - a) % (2 * ranks) == 0 for a, b in pairwise(bounds)) and bounds[-1] == ranks * len(q)
    samples = [torch.arange(a, b).chunk(2 * ranks) for a, b in pairwise(bounds) if b > a]
    places = [torch.cat([chunk for s in samples for chunk in (s[r], s[-1 - r])]) for r in range(ranks)]
    order = torch.cat(places).argsort()
    k, v = (mappings.gather_from_sequence_parallel_region(t, True, group)[order] for t in (k, v))
    sample = torch.bucketize(torch.arange(bounds[-1]), torch.tensor(bounds), right=True)
    query, key = places[own][:, None], torch.arange(bounds[-1])
    sees = (key <= query) & (sample[key] == sample[query])
    qkv = (t.transpose(0, 1)[None] for t in (q, k, v))
    return F.scaled_dot_product_attention(*qkv, attn_mask=sees, enable_gqa=True)[0].transpose(0, 1).flatten(1)


def apply_rotary_pos_emb(t: Tensor, freqs: Tensor, tensor_format: str, fused: bool) -> Tensor:
    """t [s, b, h, d], freqs fp32 [s, 1, 1, d]."""
    assert tensor_format == "sbhd" and fused and freqs.dtype == torch.float32 and freqs.shape[0] == t.shape[0]
    half = t.shape[-1] // 2
    turned = torch.cat([-t[..., half:], t[..., :half]], dim=-1)
    return (t * freqs.cos() + turned * freqs.sin()).to(t.dtype)


class Recipe:
    def __init__(self, **_: Any) -> None: ...

    def delayed(self) -> bool:
        return type(self).__name__ == "DelayedScaling"


class DelayedScaling(Recipe): ...


class Float8CurrentScaling(Recipe): ...


class Format:
    HYBRID = "hybrid"


class _Module(ModuleType):
    """Whatever else megatron-core names while it defines its wrappers is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


def swiglu(x: Tensor, quantizer: None) -> Tensor:
    """x [rows, 2 I] -> [rows, I], computed in fp32."""
    first, second = x.float().chunk(2, dim=-1)
    return (F.silu(first) * second).to(x.dtype)


def dswiglu(gradient: Tensor, x: Tensor, quantizer: None) -> Tensor:
    """Gradient of x."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(swiglu(leaf, None), leaf, gradient)
    return found


def _modules() -> dict[str, ModuleType]:
    content: dict[str, dict[str, Any]] = {
        "": {"__version__": "2.20.2"},
        ".common": {},
        ".common.recipe": {k: globals()[k] for k in ("DelayedScaling", "Float8CurrentScaling", "Format")},
        ".pytorch": {k: globals()[k] for k in ("Linear", "LayerNormLinear", "DotProductAttention", "autocast")},
        ".pytorch.fp8": {"FP8GlobalStateManager": FP8GlobalStateManager, "fp8_autocast": autocast},
        ".pytorch.quantization": {"FP8GlobalStateManager": FP8GlobalStateManager},
        ".pytorch.distributed": {},
        ".pytorch.ops": {},
        ".pytorch.router": {},
        ".pytorch.attention": {},
        ".pytorch.attention.rope": {"apply_rotary_pos_emb": apply_rotary_pos_emb},
        "_torch": {"swiglu": swiglu, "dswiglu": dswiglu},
    }
    made: dict[str, ModuleType] = {}
    for suffix, names in content.items():
        module = _Module(f"transformer_engine{suffix}")
        module.__path__ = []
        module.__dict__.update(names)
        made[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(made[parent], child, module)
    return made


REAL = ("megatron.core.extensions.transformer_engine", "model.text.transformer_engine.modules", "model.vision.fp8_linears")
"""Modules that are imported anew on top of the stand-in."""


@contextmanager
def stand_in() -> Iterator[type[State]]:
    """Transformer Engine imports here; afterwards everything is as before."""
    import megatron.core.utils as utils

    import model.video_mllama  # noqa: F401 - what does not need the stand-in is imported before it is there

    before = {name: sys.modules.pop(name) for name in REAL if name in sys.modules}
    sys.modules.update(_modules())
    try:
        for name in REAL:
            importlib.import_module(name)
        yield State
    finally:
        for name in [n for n in sys.modules if n.startswith("transformer_engine") or n in REAL]:
            del sys.modules[name]
        sys.modules.update(before)
        for name in REAL:  # the packages hold their modules as attributes too
            parent, _, child = name.rpartition(".")
            if name in before:
                setattr(sys.modules[parent], child, before[name])
            elif hasattr(sys.modules.get(parent), child):
                delattr(sys.modules[parent], child)
        utils._te_version = None
