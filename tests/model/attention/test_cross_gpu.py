"""The backends' kernels in bf16 on a GPU, against the dense oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model.attention.cross import flash
from model.attention.cross.attention import cross_attention
from tests.model.attention.cross_cases import Case, dense, dense_grads, make_case
from tests.model.attention.test_cross_backends import compare

pytestmark = pytest.mark.gpu
BACKENDS = ("torch", "flex", "varlen", "flash")


def _case(begin: np.ndarray, end: np.ndarray, bounds: list[int], frames: int, **sizes: Any) -> Case:
    sizes = {"tokens": 101, "heads": 8, "groups": 2, "width": 128, **sizes}
    return make_case(begin, end, np.array(bounds), frames, dtype=torch.bfloat16, device="cuda", **sizes)


def _growing(rows: int, frames: int, **sizes: Any) -> Case:
    return _case(np.zeros(rows, dtype=np.int64), np.arange(rows) * frames // rows + 1, [0, rows], frames, **sizes)


def _pack(**sizes: Any) -> Case:
    """A stream, a text that sees nothing, and a video whose first rows see nothing; no length is a multiple of a tile."""
    begin = np.concatenate([np.zeros(331), np.zeros(200), np.full(413, 9)]).astype(np.int64)
    end = np.concatenate([np.arange(331) * 9 // 331 + 1, np.zeros(200), np.clip(np.arange(413) - 40, 0, 17) + 9]).astype(np.int64)
    return _case(begin, end, [0, 331, 531, 944], 26, **sizes)


def _unsorted(**sizes: Any) -> Case:
    generator = np.random.default_rng(3)
    begin, end = generator.integers(0, 12, 300), generator.integers(0, 13, 300)
    return _case(begin, end, [0, 300], 12, **sizes)


def _skip_without(backend: str) -> None:
    if backend == "flash" and not flash.available(torch.device("cuda")):
        pytest.skip("flash-attn-4 or a GPU for it is missing")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [_pack, _unsorted, lambda: _growing(1500, 40), lambda: _pack(heads=4, groups=4)])
def test_bf16_equals_the_oracle(backend: str, make: Any) -> None:
    _skip_without(backend)
    assert compare(make(), backend, backend != "varlen", 2e-2) <= 2e-2


@pytest.mark.parametrize("backend", ["flex", "flash"])
def test_no_sample_of_the_pack_sees_anything_at_its_end(backend: str) -> None:
    """Whole tiles of rows without a key, and keys that no row sees."""
    _skip_without(backend)
    begin, end = np.zeros(600, dtype=np.int64), np.where(np.arange(600) < 200, 3, 0)
    assert compare(_case(begin, end, [0, 200, 600], 8), backend, True, 2e-2) <= 2e-2


def test_other_numbers_of_frames_and_rows_do_not_compile_again() -> None:
    """At most one compilation for each of: rows in whole tiles or not, keys in whole tiles or not."""
    from torch._dynamo.utils import counters

    earlier = counters["stats"]["unique_graphs"]  # of tests before this one
    for rows, frames in ((640, 7), (600, 9), (640, 128), (600, 128)):
        assert compare(_growing(rows, frames), "flex", False, 2e-2) <= 2e-2
    before = counters["stats"]["unique_graphs"]
    assert before - earlier <= 4
    for rows, frames in ((700, 11), (384, 5), (1001, 23), (900, 40), (512, 256)):
        assert compare(_growing(rows, frames), "flex", False, 2e-2) <= 2e-2
    assert counters["stats"]["unique_graphs"] == before


def test_auto_is_a_backend_that_runs() -> None:
    assert compare(_growing(1300, 20), "auto", True, 2e-2) <= 2e-2


@pytest.mark.parametrize(
    "make", [_pack, _unsorted, lambda: _growing(1500, 40), lambda: _growing(300, 8), lambda: _pack(heads=4, groups=4)]
)
def test_a_dense_mask_in_bf16_equals_the_oracle(make: Any) -> None:
    """Keys of 8 and of 26 frames are no multiple of what the kernels want a mask to be aligned to."""
    case = make()
    leaves = [t.detach().requires_grad_() for t in (case.q, case.k, case.v)]
    out = cross_attention(*leaves, case.plan, backend="dense")
    torch.testing.assert_close(out.cpu().double(), dense(case)[0], atol=2e-2, rtol=2e-2)
    found = torch.autograd.grad((out * case.grad_out).sum(), leaves)
    for got, wanted in zip(found, dense_grads(case, with_lse=False), strict=True):
        scale = wanted.abs().max()
        torch.testing.assert_close(got.cpu().double() / scale, wanted / scale, atol=2e-2, rtol=2e-2)
