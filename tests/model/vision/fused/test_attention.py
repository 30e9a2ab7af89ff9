"""Attention from the joint product: every library that runs here against autograd over torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import InputError
from model.vision.fused.attention import BACKENDS, choose, of, problem, trial

CPU = torch.device("cpu")


def _expected(qkv: Tensor, dmixed: Tensor) -> tuple[Tensor, Tensor]:
    qkv = qkv.detach().requires_grad_()
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    mixed.backward(dmixed)
    assert qkv.grad is not None
    return mixed.detach(), qkv.grad


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["cpu", "formula"]), st.integers(1, 3), st.integers(1, 33), st.integers(1, 3), st.integers(1, 9))
def test_output_and_gradient(name: str, frames: int, tokens: int, heads: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(frames, tokens, 3, heads, width, generator=generator)
    dmixed = torch.randn(frames, tokens, heads, width, generator=generator)
    library = of(name)
    mixed, state = library.forward(qkv)
    dqkv = library.backward(dmixed, qkv, mixed, state)
    expected, gradient = _expected(qkv, dmixed)
    assert mixed.is_contiguous() and dqkv.is_contiguous()
    assert state[0].shape == (frames, heads, tokens)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(dqkv, gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_takes_torchs_own(dtype: torch.dtype) -> None:
    assert choose(CPU, dtype, 2, 8).name == "cpu"
    assert trial("cpu", CPU, dtype, 2, 8) == ""


def test_the_formula_is_exact_for_operands_of_16_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, 402, 3, 2, 80, generator=generator).bfloat16()
    dmixed = torch.randn(1, 402, 2, 80, generator=generator).bfloat16()
    formula = of("formula")
    mixed, state = formula.forward(qkv)
    dqkv = formula.backward(dmixed, qkv, mixed, state)
    for found, wanted in zip((mixed, dqkv), _expected(qkv.float(), dmixed.float()), strict=True):
        assert float((found.float() - wanted).norm() / wanted.norm()) < 0.005


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(InputError, match="attention 'fastest' of the fused layer is not known; use one of flash_4, cudnn"):
        of("fastest")
    assert "CUDA devices only" in str(problem("cudnn", CPU))
    assert trial("cudnn", CPU, torch.float32, 2, 8), "a library that does not run here is not said to work"


@pytest.mark.gpu
@pytest.mark.parametrize("name", BACKENDS)
def test_on_the_gpu_at_full_size(name: str) -> None:
    device, dtype = torch.device("cuda", 0), torch.bfloat16
    reason = problem(name, device)
    if reason is not None:
        pytest.skip(reason)
    assert trial(name, device, dtype, 16, 80) == ""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 1608, 3, 16, 80, generator=generator).to(device, dtype)
    dmixed = torch.randn(2, 1608, 16, 80, generator=generator).to(device, dtype)
    library = of(name)
    mixed, state = library.forward(qkv)
    dqkv = library.backward(dmixed, qkv, mixed, state)
    assert mixed.is_contiguous() and dqkv.is_contiguous()
    for found, wanted in zip((mixed, dqkv), _expected(qkv.float(), dmixed.float()), strict=True):
        assert float((found.float() - wanted).norm() / wanted.norm()) < 0.01


def test_a_trial_draws_its_numbers_on_the_cpu_where_modules_are_being_made_elsewhere() -> None:
    with torch.device("meta"):  # as a default device of cuda while a model is built there
        assert trial("cpu", torch.device("cpu"), torch.float32, 2, 16) == ""
