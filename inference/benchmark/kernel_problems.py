"""What the kernels' benchmark runs: every operation of a decoding step at given dimensions, in each form that could do it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from inference.kernels.attention import paged_attention
from inference.kernels.gates import silu_and_multiply
from inference.kernels.heads import rotate_and_store
from inference.kernels.norms import add_rms_norm
from inference.kernels.skinny import MAX_ROWS, skinny_linear, skinny_swiglu
from inference.kernels.torch_forms.prefix_attention import prefix_attention
from inference.model.rows import PagedGroup, PagedView
from inference.quantize.rows import dequantize_rows, quantize_rows
from model.kernels.select import FORMS
from model.kernels.select import Form as KernelForm

Form = Callable[[int], torch.Tensor]
"""Runs an operation on copy i of its operands."""


@dataclass(frozen=True)
class Dimensions:
    """Of the decoder; the defaults are those of the 11B model."""

    hidden: int = 4096
    inner: int = 14336
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    vocabulary: int = 128256
    tokens_per_frame: int = 101
    self_page: int = 64
    rows: tuple[int, ...] = (1, 2, 4, 16, 64)
    frames: tuple[int, ...] = (60, 256, 3600)
    context: int = 2048
    """Rows of text that a self layer's row sees."""


@dataclass
class Problem:
    """One operation at one size."""

    group: str
    name: str
    shape: dict[str, int]
    num_bytes: int
    """That must be read and written once, in the form that the operands have."""
    make: Callable[[torch.device, torch.dtype, int], dict[str, Form]] = field(repr=False)
    """Forms by name, the plainest first, over so many copies of the operands."""
    tolerance: float = 2e-2
    """Largest difference from the first form that rounding explains, of the largest element."""


def problems(dims: Dimensions, *, variants: bool = False) -> Iterator[Problem]:
    """All, most telling first: a run that is cut short has them.

    Args:
        dims: sizes.
        variants: other launches of the Triton forms as well.
    """
    rows = [n for n in dims.rows if n <= MAX_ROWS]
    for n in rows:
        yield from _products(dims, n, variants)
    page, text = dims.tokens_per_frame, dims.context
    for frames in dims.frames:
        for n in dims.rows:
            yield _attention(dims, "cross attention", n, 1, frames * page, page, False, variants)
    for n in dims.rows:
        yield _attention(dims, "self attention", n, 1, text, dims.self_page, False, variants)
    for n in dims.rows[1:]:
        yield _attention(dims, "cross attention", n, n, dims.frames[0] * page, page, False, variants)
        yield _attention(dims, "self attention", n, n, text, dims.self_page, False, variants)
    yield _attention(dims, "cross attention", 1, 1, dims.frames[-1] * page, page, True, variants)
    for n in (dims.rows[0], dims.rows[-1]):
        yield _norm(dims, n)
        yield _rotation(dims, n)
        yield _gate(dims, n)


def _products(dims: Dimensions, n: int, variants: bool) -> Iterator[Problem]:
    joint = (dims.heads + 2 * dims.kv_heads) * dims.head_dim
    shapes = {
        "qkv": (joint, dims.hidden),
        "out": (dims.hidden, dims.heads * dims.head_dim),
        "gate_up": (2 * dims.inner, dims.hidden),
        "down": (dims.hidden, dims.inner),
        "head": (dims.vocabulary, dims.hidden),
    }
    for name, (outs, ins) in shapes.items():
        for fp8 in (False, True) if name != "head" else (False,):
            make = functools.partial(_product_forms, outs, ins, n, fp8, name == "gate_up", variants)
            size = outs * ins * (1 if fp8 else 2) + (4 * outs if fp8 else 0)
            yield Problem("product, fp8" if fp8 else "product", name, {"rows": n, "out": outs, "in": ins}, size, make)


def _product_forms(
    outs: int, ins: int, n: int, fp8: bool, gated: bool, variants: bool, device: torch.device, dtype: torch.dtype, copies: int
) -> dict[str, Form]:
    weights = [torch.randn(outs, ins, device=device, dtype=dtype) * ins**-0.5 for _ in range(copies)]
    x = torch.randn(n, ins, device=device, dtype=dtype)
    operation = skinny_swiglu if gated else skinny_linear

    def finish(product: torch.Tensor) -> torch.Tensor:
        return silu_and_multiply(product) if gated else product

    def variant(launch: Any, i: int) -> torch.Tensor:
        from inference.kernels.triton_forms.skinny import skinny_product

        return skinny_product(x, *(pairs[i] if fp8 else (weights[i], None)), glu=gated, launch=launch)

    def early(i: int) -> torch.Tensor:
        from inference.kernels.triton_forms.dependent import dependent_launches

        with dependent_launches(True):
            return variant(None, i)

    others: dict[str, Form] = {"triton, begun early": early} if variants else {}
    others |= {
        f"triton, {launch}": functools.partial(variant, launch) for launch in (_launches(n, fp8, gated) if variants else ())
    }
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    if not fp8:
        return {
            "torch": lambda i: finish(F.linear(x, weights[i])),
            "triton": lambda i: operation(x, weights[i], form="triton"),
        } | others
    pairs += [quantize_rows(weights.pop()) for _ in range(copies)]
    forms: dict[str, Form] = {
        "torch": lambda i: finish(F.linear(x, dequantize_rows(*pairs[i], dtype))),
        "triton": lambda i: operation(x, *pairs[i], form="triton"),
    }
    if device.type == "cuda":

        def scaled(i: int) -> torch.Tensor:
            quantised, factor = quantize_rows(x)
            weight, scale = pairs[i]
            product: torch.Tensor = torch._scaled_mm(
                quantised, weight.t(), scale_a=factor[:, None], scale_b=scale[None], out_dtype=dtype, use_fast_accum=True
            )
            return finish(product)

        forms["scaled_mm"] = scaled
        if n == 1 and outs == ins:  # one size tells enough: compilation takes seconds
            compiled = torch.compile(lambda x, weight, factor: F.linear(x, dequantize_rows(weight, factor, dtype)))
            forms["torch.compile"] = lambda i: compiled(x, *pairs[i])
    return forms | others


def _launches(n: int, fp8: bool, gated: bool) -> list[Any]:
    """Other launches of a product, worth a try."""
    from inference.kernels.triton_forms.skinny import Launch

    if n == 1:
        outs, stages = 2 if gated else 4, 4 if fp8 else 3
        plain = Launch(outs, 1024, 1, stages=stages, dot=False)
        return [
            replace(plain, registers=64),
            replace(plain, stages=stages + 2),
            replace(plain, block_out=2 * outs, block_in=512),
            replace(plain, block_out=2 * outs, warps=8),
            replace(plain, block_in=2048),
        ]
    if gated:
        few = [Launch(32, 128, 1, stages=3), Launch(16, 128, 1, warps=2, stages=3), Launch(32, 64, 1, stages=5)]
        return [Launch(64, 128, 1, warps=8, stages=3), Launch(32, 128, 1), Launch(32, 256, 1, stages=3)] if fp8 else few
    # Without shares there is no second kernel.
    return [Launch(16, 256, 1, warps=2), Launch(16, 512, 1, stages=3), Launch(32, 128, 2), Launch(64, 128, 4)]


def _attention(
    dims: Dimensions, group: str, n: int, sessions: int, keys: int, page_rows: int, fp8: bool, variants: bool
) -> Problem:
    per_row = 2 * dims.kv_heads * (dims.head_dim * (1 if fp8 else 2) + (4 if fp8 else 0))
    make = functools.partial(_attention_forms, dims, n, sessions, keys, page_rows, fp8, variants)
    name = ("one session" if sessions == 1 else "a session a row") + (", fp8" if fp8 else "")
    shape = {"rows": n, "sessions": sessions, "keys": keys, "page_rows": page_rows}
    return Problem(group, name, shape, sessions * keys * per_row, make)


def _attention_forms(
    dims: Dimensions,
    n: int,
    sessions: int,
    keys: int,
    page_rows: int,
    fp8: bool,
    variants: bool,
    device: torch.device,
    dtype: torch.dtype,
    copies: int,
) -> dict[str, Form]:
    width = -(-keys // page_rows)
    store = torch.randn(copies, 2, sessions * width, page_rows, dims.kv_heads, dims.head_dim, device=device, dtype=dtype)
    scales: torch.Tensor | None = None
    if fp8:
        store, scales = quantize_rows(store)
    queries = torch.randn(n, dims.heads, dims.head_dim, device=device, dtype=dtype)
    # The rows of one session see up to their own; pages lie in order in one form and in any order in the other.
    limits = [keys] * n if sessions > 1 else [keys - n + 1 + row for row in range(n)]
    ordered = torch.arange(sessions * width)
    in_order, scattered = (
        _view(table.view(sessions, width), limits, device) for table in (ordered, torch.randperm(len(ordered)))
    )

    def run(view: PagedView, form: KernelForm, launch: Any, i: int) -> torch.Tensor:
        own = None if scales is None else scales[i]
        if launch is None:
            return paged_attention(queries, store[i, 0], store[i, 1], own, view, form=form)
        from inference.kernels.triton_forms.paged_attention import paged_attention as launched

        return launched(queries, store[i, 0], store[i, 1], own, view.tables, view.session, view.limits, launch)

    # What the torch form makes of limits would be copied from the host, which no graph can hold.
    seen = torch.tensor(limits, dtype=torch.int64, device=device) if sessions == 1 and n > 1 else None

    def sdpa(i: int) -> torch.Tensor:
        if sessions > 1:
            return run(in_order, "torch", None, i)
        return prefix_attention(queries, store[i, 0].flatten(0, 1)[:keys], store[i, 1].flatten(0, 1)[:keys], seen)

    forms: dict[str, Form] = {} if fp8 else {"torch": sdpa}
    forms["triton"] = functools.partial(run, in_order, "triton", None)
    forms["triton, scattered"] = functools.partial(run, scattered, "triton", None)
    if variants:
        forms |= {f"triton, {one}": functools.partial(run, in_order, "triton", one) for one in _attention_launches(n, dims)}
    return forms


def _view(tables: torch.Tensor, limits: list[int], device: torch.device) -> PagedView:
    """All rows in one session, or each in its own."""
    sessions, n = len(tables), len(limits)
    owners = [0] * n if sessions == 1 else list(range(n))
    spans = [(0, n)] if sessions == 1 else [(row, row + 1) for row in range(n)]
    groups = [PagedGroup(begin, end, tables[owners[begin]].tolist(), limits[begin:end]) for begin, end in spans]
    return PagedView(
        tables.to(device, torch.int32),
        torch.tensor(owners, dtype=torch.int32, device=device),
        torch.tensor(limits, dtype=torch.int32, device=device),
        groups,
    )


def _attention_launches(n: int, dims: Dimensions) -> list[Any]:
    """Other launches of the attention, worth a try."""
    from inference.kernels.triton_forms.paged_attention import Launch

    group = dims.heads // dims.kv_heads
    small, large = max(16 // group, 1), max(64 // group, 1)
    if n <= small:
        return [
            Launch(small, block, splits, stages=stages)
            for block, splits, stages in ((32, 32, 5), (64, 64, 5), (128, 32, 3), (64, 16, 5))
        ]
    return [
        Launch(tile, 64, splits, stages=stages)
        for tile, splits, stages in ((small, 8, 5), (large, 16, 3), (large, 32, 3), (large, 8, 5))
    ]


def _norm(dims: Dimensions, n: int) -> Problem:
    def make(device: torch.device, dtype: torch.dtype, copies: int) -> dict[str, Form]:
        h, x = torch.randn(2, n, dims.hidden, device=device, dtype=dtype)
        weight = torch.rand(dims.hidden, device=device, dtype=dtype)
        forms: dict[str, Form] = {
            form: functools.partial(lambda form, i: add_rms_norm(h, x, weight, 1e-5, form=form)[1], form) for form in FORMS
        }
        if device.type == "cuda" and n == 1:
            compiled = torch.compile(lambda h, x, weight: add_rms_norm(h, x, weight, 1e-5, form="torch")[1])
            forms["torch.compile"] = lambda i: compiled(h, x, weight)
        return forms

    return Problem("elementwise", "sum and norm", {"rows": n}, (4 * n + 1) * dims.hidden * 2, make)


def _gate(dims: Dimensions, n: int) -> Problem:
    def make(device: torch.device, dtype: torch.dtype, copies: int) -> dict[str, Form]:
        x = torch.randn(n, 2 * dims.inner, device=device, dtype=dtype)
        return {form: functools.partial(lambda form, i: silu_and_multiply(x, form=form), form) for form in FORMS}

    return Problem("elementwise", "gate", {"rows": n}, 3 * n * dims.inner * 2, make)


def _rotation(dims: Dimensions, n: int) -> Problem:
    width = (dims.heads + 2 * dims.kv_heads) * dims.head_dim

    def make(device: torch.device, dtype: torch.dtype, copies: int) -> dict[str, Form]:
        qkv = torch.randn(n, width, device=device, dtype=dtype)
        cos, sin = torch.rand(2, n, dims.head_dim, device=device, dtype=dtype)
        pages = torch.zeros(2, 2 + n // dims.self_page, dims.self_page, dims.kv_heads, dims.head_dim, device=device, dtype=dtype)
        slots = torch.arange(n, device=device)

        def run(form: KernelForm, i: int) -> torch.Tensor:
            return rotate_and_store(qkv, cos, sin, pages[0], pages[1], slots, form=form)

        return {form: functools.partial(run, form) for form in FORMS}

    return Problem("elementwise", "rotation into pages", {"rows": n}, 2 * n * width * 2, make)
