"""Up to 16 rows times a matrix in Triton, at the speed of reading the matrix.

One row is a sum along the matrix's rows in registers; two to sixteen are padded to the 16 rows of a matrix instruction. A matrix
with few output rows is split along its inputs as well; the shares are added by a second kernel in a fixed order, never by
atomic operations, so results do not change from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference.kernels.triton_forms.dependent import EARLY, LATE, OFF, announce, enter, fetch, launch_options, wait
from model.kernels.select import multiprocessors


@dataclass(frozen=True)
class Launch:
    """Shape of a launch: what a benchmark varies. `launch_shape` gives the default."""

    block_out: int
    """Rows of the matrix in a program."""
    block_in: int
    """Columns that are read at a time."""
    splits: int
    """Shares of the columns."""
    warps: int = 4
    stages: int = 4
    dot: bool = True
    """Matrix instructions; otherwise sums in registers, for one row."""
    ahead: int = 0
    """Bytes of a program's share of the matrix that are fetched before the rows are there, at the most."""
    registers: int | None = None
    """Of a thread, at the most: so that more programs fit; None: what the compiler takes."""


def launch_shape(
    rows: int, outs: int, ins: int, element_size: int, units: int, *, glu: bool = False, exact: bool = False
) -> Launch:
    """The default launch.

    Args:
        rows: of x.
        outs: results of a row; half the matrix's rows for the gated form.
        ins: columns of the matrix.
        element_size: bytes of an element of the matrix.
        units: multiprocessors of the device.
        glu: the gated form, a program of which reads two blocks of the matrix.
        exact: x is in fp32, whose products are no matrix instructions and take more registers.
    """
    widest, matrices = triton.next_power_of_2(ins), 2 if glu else 1
    if rows == 1:
        # 4 or 8 KiB a step, copied two to five steps ahead; 32 sums a thread leave room for seven programs: 84 to 140 KiB on
        # their way to a multiprocessor, where 30 KiB would do if all were regular.
        stages, block_out = 6 if element_size == 1 else 3, 4 // matrices
        block_in = min(1024, widest)
        # Eight programs rather than seven where a second round would be a small one.
        if 7 * units < triton.cdiv(outs, block_out) <= 8 * units:
            return Launch(block_out, block_in, 1, stages=min(stages, 5), dot=False, registers=64)
        return Launch(block_out, block_in, 1, stages=stages, dot=False)
    if glu and not exact:
        # Few enough stages that all programs of the 11B model's gate and up are there at once: no small second round.
        return Launch(32, max(min(128 if element_size == 2 else 256, widest), 16), 1, stages=3)
    if element_size == 2 and triton.cdiv(outs, 16) <= 3 * units:
        # Small blocks instead of shares: no second kernel, though half of what the cache gives is x.
        return Launch(16, max(min(256, widest), 16), 1, warps=2, stages=5)
    # Every program reads x as well: 64 rows of an fp8 matrix for 16 of x, or x would be half of what the cache has to give.
    block_out = 64 if element_size == 1 and rows > 4 and not exact else 32
    block_in = 128 if block_out == 64 else min(512 // (min(element_size, 2) * matrices), 256)
    block_in = max(min(block_in, widest, 64 if exact else widest), 16)
    programs = triton.cdiv(outs, block_out)
    splits = 1
    while splits < 8 and 2 * splits * programs <= 3 * units and ins >= 4 * splits * block_in:
        splits *= 2
    return Launch(block_out, block_in, splits)


@triton.jit
def _finish(gate, up, to, mask, GLU: tl.constexpr):
    """Round as separate operations would, and store."""
    kind = to.dtype.element_ty
    result = gate.to(kind)
    if GLU:
        wide = result.to(tl.float32)
        result = ((wide / (1.0 + tl.exp(-wide))).to(kind).to(tl.float32) * up.to(kind).to(tl.float32)).to(kind)
    tl.store(to, result, mask=mask)


@triton.jit
def widened(x, kind: tl.constexpr, NARROW: tl.constexpr):
    """fp8 by way of fp32, as exact and several times as fast: between fp16 and bf16 the GPU converts number by number."""
    if NARROW:
        x = x.to(tl.float32)
    return x.to(kind)


@triton.jit
def _fetch(w_ptr, row, outs, ins, begin, AHEAD: tl.constexpr, PIECE: tl.constexpr, FIRST: tl.constexpr, GLU: tl.constexpr):
    """The first `AHEAD` bytes of each of these rows, from column `begin` on; for programs that are there from the start."""
    if AHEAD > 0:  # noqa: SIM102 (known when it is compiled; the next is not)
        if tl.program_id(0) < FIRST:
            size: tl.constexpr = w_ptr.dtype.element_ty.primitive_bitwidth // 8
            piece = tl.arange(0, AHEAD // PIECE)[None, :] * PIECE
            fetch(w_ptr.to(tl.int64) + (row[:, None].to(tl.int64) * ins + begin) * size + piece, PIECE)
            if GLU:
                fetch(w_ptr.to(tl.int64) + ((row + outs)[:, None].to(tl.int64) * ins + begin) * size + piece, PIECE)


@triton.jit
def _one_row(
    x_ptr, w_ptr, scale_ptr, out_ptr, outs, ins,
    BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, EVEN: tl.constexpr, SCALED: tl.constexpr, GLU: tl.constexpr,
    WHOLE: tl.constexpr, STAGES: tl.constexpr, AHEAD: tl.constexpr, PIECE: tl.constexpr, FIRST: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    announce(DEPENDENT, EARLY)
    out = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    row = out if WHOLE else tl.minimum(out, outs - 1)  # rows behind the last are read again, not stored
    at = tl.arange(0, BLOCK_IN)
    _fetch(w_ptr, row, outs, ins, 0, AHEAD, PIECE, FIRST, GLU)
    wait(DEPENDENT)
    first = w_ptr + row[:, None].to(tl.int64) * ins + at[None, :]
    second = first + outs.to(tl.int64) * ins
    gate = tl.zeros([BLOCK_OUT, BLOCK_IN], tl.float32)
    up = tl.zeros([BLOCK_OUT, BLOCK_IN], tl.float32)
    for start in tl.range(0, ins, BLOCK_IN, num_stages=STAGES):
        if EVEN:
            w = tl.load(first + start, eviction_policy="evict_first")
            x = tl.load(x_ptr + start + at).to(tl.float32)
        else:
            inside = start + at < ins
            w = tl.load(first + start, mask=inside[None, :], other=0.0)
            x = tl.load(x_ptr + start + at, mask=inside, other=0.0).to(tl.float32)
        gate += w.to(tl.float32) * x[None, :]
        if GLU:
            if EVEN:
                u = tl.load(second + start, eviction_policy="evict_first")
            else:
                u = tl.load(second + start, mask=(start + at < ins)[None, :], other=0.0)
            up += u.to(tl.float32) * x[None, :]
    announce(DEPENDENT, LATE)
    result, other = tl.sum(gate, 1), tl.sum(up, 1)
    if SCALED:
        result *= tl.load(scale_ptr + row)
        if GLU:
            other *= tl.load(scale_ptr + outs + row)
    _finish(result, other, out_ptr + out, WHOLE | (out < outs), GLU)


@triton.jit(do_not_specialize=["rows"])
def _rows(
    x_ptr, w_ptr, scale_ptr, out_ptr, part_ptr, rows, outs, ins,
    BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, SPLITS: tl.constexpr, EVEN: tl.constexpr, SCALED: tl.constexpr,
    GLU: tl.constexpr, EXACT: tl.constexpr, AHEAD: tl.constexpr, PIECE: tl.constexpr,
    FIRST: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    announce(DEPENDENT, EARLY)
    out = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    split = tl.program_id(1)
    lane = tl.arange(0, 16)
    row = tl.minimum(out, outs - 1)
    at = tl.arange(0, BLOCK_IN)
    share = tl.cdiv(tl.cdiv(ins, SPLITS), BLOCK_IN) * BLOCK_IN
    begin = split * share
    end = tl.minimum(begin + share, ins)
    _fetch(w_ptr, row, outs, ins, begin, AHEAD, PIECE, FIRST, GLU)
    wait(DEPENDENT)
    source = x_ptr + lane[:, None] * ins + at[None, :]
    first = w_ptr + row[:, None].to(tl.int64) * ins + at[None, :]
    second = first + outs.to(tl.int64) * ins
    gate = tl.zeros([16, BLOCK_OUT], tl.float32)
    up = tl.zeros([16, BLOCK_OUT], tl.float32)
    live = (lane < rows)[:, None]
    for start in range(begin, end, BLOCK_IN):
        if EVEN:
            x = tl.load(source + start, mask=live, other=0.0)  # [16, BLOCK_IN]
            w = tl.load(first + start)  # [BLOCK_OUT, BLOCK_IN]
        else:
            inside = (start + at < ins)[None, :]
            x = tl.load(source + start, mask=live & inside, other=0.0)
            w = tl.load(first + start, mask=inside, other=0.0)
        gate = tl.dot(x, tl.trans(widened(w, x.dtype, SCALED)), gate, input_precision="ieee" if EXACT else "tf32")
        if GLU:
            if EVEN:
                u = tl.load(second + start)
            else:
                u = tl.load(second + start, mask=(start + at < ins)[None, :], other=0.0)
            up = tl.dot(x, tl.trans(widened(u, x.dtype, SCALED)), up, input_precision="ieee" if EXACT else "tf32")
    announce(DEPENDENT, LATE)
    mask = live & (out < outs)[None, :]
    if SPLITS == 1:
        if SCALED:
            gate *= tl.load(scale_ptr + row)[None, :]
            if GLU:
                up *= tl.load(scale_ptr + outs + row)[None, :]
        _finish(gate, up, out_ptr + lane[:, None] * outs + out[None, :], mask, GLU)
    else:
        matrices = 2 if GLU else 1
        to = part_ptr + ((split * rows + lane) * matrices)[:, None] * outs + out[None, :]  # [split, row, matrix, out]
        tl.store(to, gate, mask=mask)
        if GLU:
            tl.store(to + outs, up, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _add_shares(
    part_ptr, scale_ptr, out_ptr, rows, outs, BLOCK: tl.constexpr, SPLITS: tl.constexpr, SCALED: tl.constexpr,
    GLU: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    enter(DEPENDENT)
    row = tl.program_id(0)
    out = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = out < outs
    matrices = 2 if GLU else 1
    gate = tl.zeros([BLOCK], tl.float32)
    up = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        source = part_ptr + (split * rows + row) * matrices * outs + out
        gate += tl.load(source, mask=mask, other=0.0)
        if GLU:
            up += tl.load(source + outs, mask=mask, other=0.0)
    if SCALED:
        gate *= tl.load(scale_ptr + out, mask=mask, other=0.0)
        if GLU:
            up *= tl.load(scale_ptr + outs + out, mask=mask, other=0.0)
    _finish(gate, up, out_ptr + row * outs + out, mask, GLU)


def _ahead(launch: Launch, ins: int, element_size: int, glu: bool) -> int:
    """Bytes of each matrix row of a program to fetch: a power of two of whole lines within its share, or 0."""
    if ins % (launch.splits * launch.block_in):
        return 0  # the last share is shorter
    most = min(launch.ahead // (launch.block_out * (2 if glu else 1)), ins * element_size // launch.splits)
    return 0 if most < 128 else 1 << (most.bit_length() - 1)


def skinny_product(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None, *, glu: bool, launch: Launch | None = None
) -> torch.Tensor:
    """x [n, in] with at most 16 rows times weight [out, in]; `glu` gives silu of the first half times the second.

    Returns:
        [n, out] or [n, out / 2], in the dtype of `x`.
    """
    x = x.contiguous()
    rows, ins = x.shape
    outs = weight.shape[0] // 2 if glu else weight.shape[0]
    if launch is None:
        launch = launch_shape(
            rows, outs, ins, weight.element_size(), multiprocessors(x.device), glu=glu, exact=x.dtype == torch.float32
        )
    out = torch.empty(rows, outs, dtype=x.dtype, device=x.device)
    scales = x if scale is None else scale
    programs, even = triton.cdiv(outs, launch.block_out), ins % launch.block_in == 0
    scaled, options = scale is not None, launch_options(x.device, rows)
    ahead = _ahead(launch, ins, weight.element_size(), glu) if options["DEPENDENT"] != OFF.value else 0
    # A piece for each thread; a program that begins when others have ended comes too late to fetch anything.
    piece = max(128, ahead * launch.block_out // (32 * launch.warps))
    fetched = {"AHEAD": ahead, "PIECE": piece, "FIRST": 8 * multiprocessors(x.device)}
    if launch.registers is not None:
        options = options | {"maxnreg": launch.registers}
    if not launch.dot:
        _one_row[(programs,)](
            x, weight, scales, out, outs, ins, BLOCK_OUT=launch.block_out, BLOCK_IN=launch.block_in, EVEN=even,
            SCALED=scaled, GLU=glu, WHOLE=outs % launch.block_out == 0, STAGES=launch.stages,
            num_warps=launch.warps, **fetched, **options,
        )  # fmt: skip
        return out
    splits = launch.splits
    parts = out
    if splits > 1:
        parts = torch.empty(splits, rows, 1 + glu, outs, dtype=torch.float32, device=x.device)
    _rows[(programs, splits)](
        x, weight, scales, out, parts, rows, outs, ins, BLOCK_OUT=launch.block_out, BLOCK_IN=launch.block_in, SPLITS=splits,
        EVEN=even, SCALED=scaled, GLU=glu, EXACT=x.dtype == torch.float32, num_warps=launch.warps,
        num_stages=launch.stages, **fetched, **options,
    )  # fmt: skip
    if splits > 1:
        _add_shares[(rows, triton.cdiv(outs, 1024))](
            parts, scales, out, rows, outs, BLOCK=1024, SPLITS=splits, SCALED=scaled, GLU=glu, num_warps=4,
            **launch_options(x.device, rows),
        )  # fmt: skip
    return out
