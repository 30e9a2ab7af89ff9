"""One layer of the tower as one node of autograd, whose forward pass keeps what a level says and no more.

The backward pass computes the missing states again, with the same operations on the same operands, so nothing depends on the
level but memory and time, and one rounding where gelu is joined to fc1 (`model.vision.fused.joined`): level `all`, which keeps
what fc1 gave, runs them apart. A gate enters as a scalar on the device; its factor goes onto matrices, never onto rows: for
y = g * (x W^T) the gradients of x and W are those without the gate times g, and that of g is the sum of (dy^T x) * W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from model.vision.fused import rows
from model.vision.fused.attention import Attention, State, choose
from model.vision.fused.levels import KEPT
from model.vision.fused.products import PLAIN, Operand, Products, deliver_small
from model.vision.layers import VisionLayer


class Parameters(NamedTuple):
    """Parameters of a layer, in the order in which autograd is given them."""

    norm1_weight: nn.Parameter
    norm1_shift: nn.Parameter
    q: nn.Parameter
    k: nn.Parameter
    v: nn.Parameter
    o: nn.Parameter
    norm2_weight: nn.Parameter
    norm2_shift: nn.Parameter
    fc1: nn.Parameter
    fc1_bias: nn.Parameter
    fc2: nn.Parameter
    fc2_bias: nn.Parameter
    gate_attn: nn.Parameter | None
    gate_ffn: nn.Parameter | None

    @classmethod
    def of(cls, layer: VisionLayer) -> Parameters:
        """A layer's own."""
        attention: Any = layer.self_attn
        mlp: Any = layer.mlp
        first, second = layer.input_layernorm, layer.post_attention_layernorm
        return cls(
            first.weight, first.bias, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight,
            attention.o_proj.weight, second.weight, second.bias, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias,
            layer.gate_attn if layer.gated else None, layer.gate_ffn if layer.gated else None,
        )  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a layer is computed."""

    level: str
    """A key of `levels.KEPT`."""
    products: Products
    attention: Attention
    heads: int
    eps: float
    """Of both norms."""


@dataclass
class States:
    """What a forward pass made: rows are [F * T, ...]. None: not kept."""

    x: Tensor
    """The layer's entry [rows, D]."""
    mean1: Tensor
    rstd1: Tensor
    """[rows] each, of the norm of x."""
    qkv: Tensor | None = None
    """[F, T, 3, heads, d]"""
    mixed: Tensor | None = None
    """Attention's output [F, T, heads, d]."""
    attention: State | None = None
    total: Tensor | None = None
    """The state between attention and MLP [rows, D]."""
    mean2: Tensor | None = None
    rstd2: Tensor | None = None
    pre: Tensor | None = None
    """What fc1's product gave, without bias [rows, I]."""
    first: Operand | None = None
    second: Operand | None = None
    """The norms as operands; never kept."""
    peak1: Tensor | None = None
    peak_mixed: Tensor | None = None
    peak2: Tensor | None = None
    peak_inner: Tensor | None = None
    """`Products.peak` of the four operands [1], where a backward pass will come; always kept."""

    def kept(self, level: str) -> States:
        """What of it outlives the forward pass."""
        return States(**{name: getattr(self, name) for name in (*ALWAYS, *KEPT[level])})


ALWAYS = ("x", "mean1", "rstd1", "peak1", "peak_mixed", "peak2", "peak_inner")


def _factor(gate: nn.Parameter | None) -> Tensor | None:
    return None if gate is None else gate.detach().tanh()


def compute(states: States, shape: torch.Size, p: Parameters, way: Way) -> None:
    """Fills in what is missing of the states, up to fc1.

    Args:
        shape: (F, T, D) of the layer.
    """
    _to_mlp(states, shape, p, way)
    if states.pre is None:
        states.pre = way.products.product(states.second, way.products.matrix(p.fc1))


def _to_mlp(states: States, shape: torch.Size, p: Parameters, way: Way, told: bool = False) -> None:
    """Fills in what is missing in front of fc1, `second` where fc1's result is missing; `told`: peaks of operands too."""
    frames, tokens, width = shape
    products = way.products
    if states.first is None and states.qkv is None:
        states.first = products.norm_again(states.x, states.mean1, states.rstd1, p.norm1_weight, p.norm1_shift)
    if states.qkv is None:
        joint = products.product(states.first, products.matrix(p.q, p.k, p.v))
        states.qkv = joint.view(frames, tokens, 3, way.heads, width // way.heads)
    if states.mixed is None or states.attention is None:
        states.mixed, states.attention = way.attention.forward(states.qkv)
    if states.total is None:
        mixed = products.operand(states.mixed.view(-1, width))
        _add_attention(states, mixed, p, way)
        if told:
            states.peak1, states.peak_mixed, states.peak2 = (products.peak(x) for x in (states.first, mixed, states.second))
    elif states.pre is None and states.second is None:
        states.second = products.norm_again(
            states.total, cast(Tensor, states.mean2), cast(Tensor, states.rstd2), p.norm2_weight, p.norm2_shift
        )


def _add_attention(states: States, mixed: Operand, p: Parameters, way: Way) -> None:
    """Attention's output as an operand [rows, D] -> the state behind it, and that one's norm."""
    products, matrix, norm = way.products, way.products.matrix(p.o), (p.norm2_weight, p.norm2_shift, way.eps)
    states.total = None if p.gate_attn is not None else products.sum_product(states.x, mixed, matrix, None)
    if states.total is not None:
        states.second, states.mean2, states.rstd2 = products.norm(states.total, *norm)
    else:
        y = products.product(mixed, matrix)
        states.total, states.second, states.mean2, states.rstd2 = products.add_norm(
            states.x, y, None, _factor(p.gate_attn), *norm
        )


def forward(x: Tensor, p: Parameters, way: Way, told: bool = False) -> tuple[Tensor, States]:
    """x [F, T, D] -> the layer's output [F, T, D], and all states that its level keeps; `told`: peaks too."""
    flat = x.reshape(-1, x.shape[-1])  # [rows, D]
    products = way.products
    first, mean, rstd = products.norm(flat, p.norm1_weight, p.norm1_shift, way.eps)
    states = States(flat, mean, rstd, first=first)
    _to_mlp(states, x.shape, p, way, told)
    assert states.total is not None
    matrix = products.matrix(p.fc1)
    keeps = told and "pre" in KEPT[way.level]
    inner = None if keeps else products.gelu_product(states.second, matrix, p.fc1_bias)
    if inner is None:
        states.pre = products.product(states.second, matrix)
        inner = products.gelu(states.pre, p.fc1_bias)
    states.peak_inner = products.peak(inner) if told else None
    matrix = products.matrix(p.fc2)
    output = None if p.gate_ffn is not None else products.sum_product(states.total, inner, matrix, p.fc2_bias)
    if output is None:
        y = products.product(inner, matrix)
        del inner
        output = rows.add(states.total, y, p.fc2_bias, _factor(p.gate_ffn))
    return output.view(x.shape), states


@dataclass
class _Wanted:
    """Which gradients are asked for, from the layer's end to its beginning: what nobody asks for is not computed."""

    x: bool
    parameters: dict[str, bool]

    def any(self, *names: str) -> bool:
        return any(self.parameters.get(name, False) for name in names)

    @property
    def norm1(self) -> bool:
        """The gradient of the first norm's result."""
        return self.x or self.any("norm1_weight", "norm1_shift")

    @property
    def attention(self) -> bool:
        """That of queries, keys and values, and with it that of attention's output."""
        return self.norm1 or self.any("q", "k", "v")

    @property
    def total(self) -> bool:
        """That of the state between attention and MLP."""
        return self.attention or self.any("o", "gate_attn")

    @property
    def norm2(self) -> bool:
        return self.total or self.any("norm2_weight", "norm2_shift")

    @property
    def pre(self) -> bool:
        return self.norm2 or self.any("fc1", "fc1_bias")


class _Backward:
    """One backward pass of a layer: gradients by the names of `Parameters`; None where a buffer took it or nobody asks."""

    def __init__(self, states: States, shape: torch.Size, p: Parameters, way: Way, wanted: _Wanted) -> None:
        self.states, self.shape, self.p, self.way, self.wanted = states, shape, p, way, wanted
        self.matrices: dict[str, Tensor | None] = {}
        self.vectors: dict[str, Tensor | None] = {}
        """Gradients in fp32 that are still to be handed out, all of them at once."""

    def __call__(self, gradient: Tensor) -> Tensor | None:
        """Gradient of the output [F, T, D] -> that of x, or None."""
        compute(self.states, self.shape, self.p, self.way)
        dtotal = gradient.reshape(-1, self.shape[-1])  # [rows, D]
        between = self._mlp(dtotal)
        dx = self._attention(between) if between is not None else None
        return None if dx is None or not self.wanted.x else dx.view(self.shape)

    def _mlp(self, dtotal: Tensor) -> Tensor | None:
        """Gradient of the output -> gradient of the state between attention and MLP."""
        states, p, wanted, products = self.states, self.p, self.wanted, self.way.products
        assert states.total is not None and states.pre is not None
        gate = _factor(p.gate_ffn)
        of_bias = wanted.any("fc2_bias", "gate_ffn")
        dy, columns = products.gradient(dtotal, p.fc2_bias if of_bias else None)
        dpre, activated, dgate = None, None, None
        if wanted.pre:
            dpre, activated, self.vectors["fc1_bias"] = self._gelu(dy, states.pre)
        elif wanted.any("fc2", "gate_ffn"):
            activated = products.gelu_right(states.pre, p.fc1_bias, states.peak_inner)
        if wanted.any("fc2", "gate_ffn"):
            (self.matrices["fc2"],), dgate = products.weight_gradient(dy, activated, p.fc2, gate=gate)
        del activated, dy
        states.pre = None
        if columns is not None:
            self.vectors["fc2_bias"] = columns if gate is None else columns * gate
            if dgate is not None:
                dgate = dgate + torch.dot(columns, p.fc2_bias.detach().to(columns.dtype))
        self.vectors["gate_ffn"] = _through_tanh(dgate, gate)
        return self._before_mlp(dpre, dtotal) if dpre is not None else None

    def _gelu(self, dy: Operand, pre: Tensor) -> tuple[Operand, Operand, Tensor | None]:
        """Gradient of fc2's product -> gradient of fc1's, the gelu again, gradient of fc1's bias."""
        p, products, gate = self.p, self.way.products, _factor(self.p.gate_ffn)
        matrix = products.matrix(p.fc2)
        together = products.gelu_gradient(dy, matrix, gate, pre, p.fc1_bias)
        if together is not None:
            return together
        da = products.input_gradient(dy, matrix, gate)
        return products.gelu_backward(da, pre, p.fc1_bias, self.states.peak_inner)

    def _before_mlp(self, dpre: Operand, dtotal: Tensor) -> Tensor | None:
        """Gradient of fc1's product, and of the output by its other way -> gradient of the state between."""
        states, p, wanted, products = self.states, self.p, self.wanted, self.way.products
        total, mean, rstd = (cast(Tensor, s) for s in (states.total, states.mean2, states.rstd2))
        if wanted.any("fc1"):
            second = products.norm_right(total, mean, rstd, p.norm2_weight, p.norm2_shift, states.peak2, states.second)
            (self.matrices["fc1"],), _ = products.weight_gradient(dpre, second, p.fc1)
            del second
        states.second = None
        if not wanted.norm2:
            return None
        dnorm = products.input_gradient(dpre, products.matrix(p.fc1))
        between, self.vectors["norm2_weight"], self.vectors["norm2_shift"] = rows.norm_backward(
            dnorm, total, mean, rstd, p.norm2_weight, dtotal
        )
        return between if wanted.total else None

    def _attention(self, dtotal: Tensor) -> Tensor | None:
        """Gradient of the state between attention and MLP -> gradient of x."""
        states, p, wanted, products, width = self.states, self.p, self.wanted, self.way.products, self.shape[-1]
        assert states.qkv is not None and states.mixed is not None and states.attention is not None
        gate = _factor(p.gate_attn)
        dy = products.operand(dtotal)
        if wanted.any("o", "gate_attn"):
            mixed = products.right(states.mixed.view(-1, width), states.peak_mixed)
            (self.matrices["o"],), dgate = products.weight_gradient(dy, mixed, p.o, gate=gate)
            self.vectors["gate_attn"] = _through_tanh(dgate, gate)
            del mixed
        if not wanted.attention:
            return None
        dmixed = products.input_gradient(dy, products.matrix(p.o), gate).view(states.mixed.shape)
        joint = self.way.attention.backward(dmixed, states.qkv, states.mixed, states.attention)
        dqkv = products.operand(joint.view(-1, 3 * width))
        del dmixed, joint, dy
        states.qkv = states.mixed = states.attention = None
        if wanted.any("q", "k", "v"):
            norm = (states.x, states.mean1, states.rstd1, p.norm1_weight, p.norm1_shift)
            first = products.norm_right(*norm, states.peak1, states.first)
            parts, _ = products.weight_gradient(dqkv, first, p.q, p.k, p.v)
            self.matrices.update(zip(("q", "k", "v"), parts, strict=True))
            del first
        if not wanted.norm1:
            return None
        dnorm = products.input_gradient(dqkv, products.matrix(p.q, p.k, p.v))
        dx, self.vectors["norm1_weight"], self.vectors["norm1_shift"] = rows.norm_backward(
            dnorm, states.x, states.mean1, states.rstd1, p.norm1_weight, dtotal
        )
        return dx

    def gradients(self) -> list[Tensor | None]:
        """For every parameter, what autograd is told."""
        names = [name for name in self.vectors if self.wanted.any(name)]
        parameters = [cast(nn.Parameter, getattr(self.p, name)) for name in names]
        small = dict(zip(names, deliver_small(parameters, [self.vectors[name] for name in names]), strict=True))
        return [small.get(name, self.matrices.get(name)) if self.wanted.any(name) else None for name in Parameters._fields]


def _through_tanh(dgate: Tensor | None, gate: Tensor | None) -> Tensor | None:
    """Gradient of tanh(parameter) -> gradient of the parameter."""
    return None if dgate is None or gate is None else dgate * (1 - gate.to(dgate.dtype).square())


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, way: Way, x: Tensor, *parameters: nn.Parameter | None) -> Tensor:  # type: ignore[override]
        p = Parameters(*parameters)  # type: ignore[arg-type]
        output, states = forward(x, p, way, told=True)
        kept = states.kept(way.level)
        ctx.way, ctx.shape, ctx.p = way, x.shape, p
        ctx.names = [name for name in (*ALWAYS, *KEPT[way.level]) if name != "attention"]
        # Parameters are among the saved so that autograd complains if they change in between; `p` has their buffers.
        ctx.save_for_backward(
            *(getattr(kept, name) for name in ctx.names), *(kept.attention or ()), *(q for q in parameters if q is not None)
        )
        ctx.attention = len(kept.attention) if kept.attention is not None else None
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        saved = ctx.saved_tensors
        count = len(ctx.names)
        states = States(**dict(zip(ctx.names, saved[:count], strict=True)))
        if ctx.attention is not None:
            states.attention = tuple(saved[count : count + ctx.attention])
        wanted = _Wanted(ctx.needs_input_grad[1], dict(zip(Parameters._fields, ctx.needs_input_grad[2:], strict=True)))
        passes = _Backward(states, ctx.shape, ctx.p, ctx.way, wanted)
        dx = passes(gradient)
        return None, dx, *passes.gradients()


def fused_layer(layer: VisionLayer, x: Tensor, level: str = "all") -> Tensor:
    """Applies a layer made of plain linear maps: see `levels.takes`.

    Args:
        layer: the layer.
        x: [F, T, D].
        level: what stays of it for the backward pass, a key of `levels.KEPT`.

    Returns:
        [F, T, D].
    """
    p = Parameters.of(layer)
    width, heads = x.shape[-1], layer.self_attn.heads
    way = Way(level, layer.products or PLAIN, choose(x.device, x.dtype, heads, width // heads), heads, layer.input_layernorm.eps)
    if not torch.is_grad_enabled() or not (x.requires_grad or any(q is not None and q.requires_grad for q in p)):
        with torch.no_grad():
            return forward(x, p, way)[0]
    output: Tensor = _Layer.apply(way, x, *p)  # type: ignore[no-untyped-call]
    return output
