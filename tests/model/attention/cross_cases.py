"""Random packs for cross-attention, and a dense oracle that shares no code with the backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from model.attention.cross.plan import CrossPlan

Samples = list[tuple[list[tuple[int, int]], int]]


@st.composite
def samples(draw: st.DrawFn, most_frames: int = 5, most_rows: int = 8) -> Samples:
    """Per sample the ranges of its rows (any ranges, empty and unsorted ones too), and its number of frames."""
    found: Samples = []
    for _ in range(draw(st.integers(1, 4))):
        frames = draw(st.integers(0, most_frames))
        bound = st.integers(0, frames)
        ranges = draw(st.lists(st.tuples(bound, bound), min_size=0, max_size=most_rows))
        if draw(st.booleans()):
            ranges = [(0, last) for last in sorted(end for _, end in ranges)]  # a growing prefix
        found.append((ranges, frames))
    if not any(ranges for ranges, _ in found):
        found.append(([(0, 0)], 0))
    return found


def bounds_of(drawn: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """cu_seqlens, cu_frames, frame_begin, frame_end of the pack."""
    cu_seqlens, cu_frames, begin, end = [0], [0], [], []
    for ranges, frames in drawn:
        begin += [cu_frames[-1] + a for a, _ in ranges]
        end += [cu_frames[-1] + b for _, b in ranges]
        cu_seqlens.append(cu_seqlens[-1] + len(ranges))
        cu_frames.append(cu_frames[-1] + frames)
    return tuple(np.array(x, dtype=np.int64) for x in (cu_seqlens, cu_frames, begin, end))  # type: ignore[return-value]


@dataclass
class Case:
    """Inputs of one call and the cotangents of its results."""

    plan: CrossPlan
    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor
    grad_lse: Tensor

    @property
    def mask(self) -> Tensor:
        """bool [T, F]"""
        frame = torch.arange(self.plan.num_frames)
        begin, end = (torch.from_numpy(x)[:, None] for x in (self.plan.begin, self.plan.end))
        return (begin <= frame) & (frame < end)


def make_case(
    begin: np.ndarray, end: np.ndarray, bounds: np.ndarray, frames: int, *, tokens: int = 3, heads: int = 4, groups: int = 2,
    width: int = 8, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0,
) -> Case:  # fmt: skip
    """Normal queries, keys, values and cotangents."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device=device, dtype=dtype)

    rows = len(begin)
    return Case(
        CrossPlan(begin, end, bounds, frames, tokens, torch.device(device)),
        normal(rows, heads, width), normal(frames, tokens, groups, width), normal(frames, tokens, groups, width),
        normal(rows, heads * width), normal(rows, heads).to(torch.promote_types(dtype, torch.float32)),
    )  # fmt: skip


def dense(case: Case) -> tuple[Tensor, Tensor]:
    """One softmax over all keys under one mask, and its log-sums, in fp64 on the CPU."""
    q, k, v = (t.detach().cpu().double() for t in (case.q, case.k, case.v))
    return dense_of(q, k, v, case.mask)


def dense_of(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """As `dense`, differentiable; mask bool [T, F]."""
    tokens, groups = k.shape[1], k.shape[2]
    k, v = (t.flatten(0, 1).repeat_interleave(q.shape[1] // groups, dim=1) for t in (k, v))
    sees = mask.repeat_interleave(tokens, 1)
    scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5
    exponents = torch.where(sees, scores, scores.new_tensor(-torch.inf))
    blind = ~sees.any(1)
    lse = torch.where(blind, scores.new_tensor(-torch.inf), exponents.masked_fill(blind[:, None], 0.0).logsumexp(-1))
    weights = torch.where(sees, (scores - lse.masked_fill(blind, 0.0)[..., None]).exp(), scores.new_zeros(()))
    return torch.einsum("hnm,mhd->nhd", weights, v).flatten(1), lse.transpose(0, 1)


def dense_grads(case: Case, with_lse: bool) -> list[Tensor]:
    """Gradients of q, k, v of the oracle for the case's cotangents."""
    leaves = [t.detach().cpu().double().requires_grad_() for t in (case.q, case.k, case.v)]
    out, lse = dense_of(*leaves, case.mask)
    value = (out * case.grad_out.cpu().double()).sum()
    if with_lse:
        value = value + (lse.masked_fill(lse == -torch.inf, 0.0) * case.grad_lse.cpu().double()).sum()
    return list(torch.autograd.grad(value, leaves, allow_unused=False))
