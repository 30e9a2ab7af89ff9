"""The update of many tensors in Triton beside the same formulas in torch, and beside our torch Adam."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moss_train.platform.fused_adam import MASTER, FusedAdam
from moss_train.platform.fused_adam_tables import GradientNorm, TableAdam, drives, scalars
from moss_train.platform.fused_adam_triton import CHUNK
from moss_train.platform.remainders import split, whole
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED, few

FP32, BF16 = torch.float32, torch.bfloat16
SIZES = st.lists(st.sampled_from([0, 1, 7, 8, 64, 2048, 2056, 5000, CHUNK, CHUNK + 24]), min_size=1, max_size=5)
FACTORS = st.sampled_from([1.0, 0.37, 1e-3])


def _parameters(sizes: list[int], weight: torch.dtype, gradient: torch.dtype, shift: int) -> list[torch.nn.Parameter]:
    """Weights and gradients are ranges of two buffers, as those of a sharded optimizer are."""
    made = torch.Generator().manual_seed(sum(sizes))
    values = torch.randn(sum(sizes) + shift, generator=made).to(DEVICE, weight)
    slopes = (torch.randn(sum(sizes) + shift, generator=made) * 0.1).to(DEVICE, gradient)
    found, begin = [], shift
    for size in sizes:
        parameter = torch.nn.Parameter(values[begin : begin + size])
        parameter.decoupled_grad = slopes[begin : begin + size]  # type: ignore[attr-defined]
        found.append(parameter)
        begin += size
    return found


def _optimizer(parameters: list[torch.nn.Parameter], moment: torch.dtype, remainders: bool, decoupled: bool) -> FusedAdam:
    half = len(parameters) // 2
    groups = [{"params": parameters[:half], "lr": 3e-3}, {"params": parameters[half:], "weight_decay": 0.1}]
    return FusedAdam(
        groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-8, adam_w_mode=decoupled, exp_avg_dtype=moment, exp_avg_sq_dtype=moment,
        master_weights=True, store_param_remainders=remainders, use_decoupled_grad=True,
    )  # fmt: skip


def _weight(parameter: Tensor, state: dict[str, Tensor]) -> Tensor:
    if parameter.dtype == FP32:
        return parameter.detach()
    return whole(parameter.detach(), state[MASTER]) if state[MASTER].dtype == torch.int16 else state[MASTER]


def _by_formulas(optimizer: FusedAdam, clip: float) -> list[list[Tensor]]:
    """What the next step leaves: weight, moments, and fp32 weight or lower half, of every parameter."""
    found = []
    for group in optimizer.param_groups:
        told = scalars(group | {"step": group.get("step", 0) + 1}, clip)
        factor, rate, beta1, beta2, rest1, rest2, inverse1, inverse2, eps, decay = (
            torch.tensor(value, dtype=FP32, device=DEVICE) for value in told
        )
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            w, g = _weight(parameter, state), parameter.decoupled_grad.float() * factor
            if not optimizer.adam_w_mode:
                g = g + decay * w
            m = beta1 * state["exp_avg"].float() + rest1 * g
            v = beta2 * state["exp_avg_sq"].float() + rest2 * g * g
            root = (v * inverse2).double().sqrt().float()  # torch's in fp32 is not always the nearest on a CPU
            change = (m * inverse1) / (root + eps)
            w = w - rate * (change + decay * w if optimizer.adam_w_mode else change)
            kept = [m.to(state["exp_avg"].dtype), v.to(state["exp_avg_sq"].dtype)]
            if parameter.dtype == FP32:
                found.append([w, *kept])
            elif state[MASTER].dtype == torch.int16:
                upper, lower = split(w)
                found.append([upper, *kept, lower])
            else:
                found.append([w.to(parameter.dtype), *kept, w])
    return found


def _left(optimizer: FusedAdam) -> list[list[Tensor]]:
    found = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            beside = [state[MASTER]] if parameter.dtype != FP32 else []
            found.append([parameter.detach(), state["exp_avg"], state["exp_avg_sq"], *beside])
    return found


@few
@pytest.mark.parametrize("weight, remainders", [(FP32, False), (BF16, False), (BF16, True)])
@given(sizes=SIZES, gradient=st.sampled_from([FP32, BF16]), moment=st.sampled_from([FP32, BF16]), clip=FACTORS,
       decoupled=st.booleans(), shift=st.sampled_from([0, 3]))  # fmt: skip
def test_every_bit_is_that_of_the_formulas(
    sizes: list[int], weight: torch.dtype, remainders: bool, gradient: torch.dtype, moment: torch.dtype, clip: float,
    decoupled: bool, shift: int,
) -> None:  # fmt: skip
    parameters = _parameters(sizes, weight, gradient, shift)
    optimizer = _optimizer(parameters, moment, remainders, decoupled)
    assert drives(optimizer)
    adam = TableAdam(optimizer)
    for parameter in parameters:
        optimizer.initialize_state(parameter, remainders and weight == BF16)
    for _ in range(3):
        expected = _by_formulas(optimizer, clip)
        before = [parameter.decoupled_grad.clone() for parameter in parameters]  # type: ignore[attr-defined]
        adam.clip = clip
        adam.step()
        for ours, theirs in zip(_left(optimizer), expected, strict=True):
            for got, wanted in zip(ours, theirs, strict=True):
                assert got.dtype == wanted.dtype
                if INTERPRETED:
                    assert torch.equal(got, wanted)
                elif got.dtype != torch.int16:  # a GPU adds a product without rounding it first
                    torch.testing.assert_close(got.float(), wanted.float(), rtol=1e-2 if got.dtype == BF16 else 2e-6, atol=1e-7)
        assert all(torch.equal(a, p.decoupled_grad) for a, p in zip(before, parameters, strict=True))  # type: ignore[attr-defined]


@few
@pytest.mark.parametrize("weight, remainders", [(FP32, False), (BF16, True)])
@given(sizes=SIZES, gradient=st.sampled_from([FP32, BF16]))
def test_the_torch_adam_does_the_same(sizes: list[int], weight: torch.dtype, remainders: bool, gradient: torch.dtype) -> None:
    """Five updates with moments in fp32, each implementation going on from a checkpoint of the other's after two."""
    sides: list[Any] = []
    for _ in range(2):
        optimizer = _optimizer(_parameters(sizes, weight, gradient, 0), FP32, remainders, True)
        sides.append(optimizer)
    tabled, plain = sides
    adam = TableAdam(tabled)
    for _ in range(2):
        adam.step()
        plain.step()
    first, second = copy.deepcopy(tabled.state_dict()), copy.deepcopy(plain.state_dict())
    # states go over with their weights: the two halves of one number belong together
    for ours, theirs in zip(_left(tabled), _left(plain), strict=True):
        kept = ours[0].clone()
        ours[0].copy_(theirs[0])
        theirs[0].copy_(kept)
    state_by_index = {"tabled": second["state"], "plain": first["state"]}
    for optimizer, states in ((tabled, state_by_index["tabled"]), (plain, state_by_index["plain"])):
        order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(order):
            if index in states:
                optimizer.state[parameter] = states[index]
    for _ in range(3):
        adam.step()
        plain.step()
    for mine, theirs in zip(tabled.param_groups, plain.param_groups, strict=True):
        assert not mine["params"] or mine["step"] == theirs["step"] == 5
        for a, b in zip(mine["params"], theirs["params"], strict=True):
            if not a.numel():
                continue
            # the order of multiplications differs, by which an update of 1e-2 changes in its last bits
            torch.testing.assert_close(_weight(a, tabled.state[a]), _weight(b, plain.state[b]), rtol=1e-6, atol=2e-7)
            for name in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(tabled.state[a][name], plain.state[b][name], rtol=2e-6, atol=1e-9)


@few
@given(sizes=SIZES.filter(any), gradient=st.sampled_from([FP32, BF16]), shift=st.sampled_from([0, 3]))
def test_the_norm(sizes: list[int], gradient: torch.dtype, shift: int) -> None:
    slopes = [p.decoupled_grad for p in _parameters(sizes, FP32, gradient, shift)]  # type: ignore[attr-defined]
    norm = GradientNorm()
    expected = torch.cat([slope.double() for slope in slopes]).norm()
    assert norm(slopes).shape == (1,)
    assert float(norm(slopes)) == pytest.approx(float(expected), rel=2e-7)
    assert torch.equal(norm(slopes), norm(slopes))


def test_what_is_not_a_number_is_told() -> None:
    slope = torch.ones(3000, device=DEVICE)
    for value in (float("inf"), float("nan")):
        slope[2999] = value
        assert not torch.isfinite(GradientNorm()([slope]))


def test_a_new_tensor_is_found() -> None:
    parameters = _parameters([64], FP32, FP32, 0)
    optimizer = _optimizer(parameters, FP32, False, True)
    adam = TableAdam(optimizer)
    adam.step()
    state = optimizer.state[parameters[0]]
    old, state["exp_avg"] = state["exp_avg"], torch.zeros_like(state["exp_avg"])
    kept = old.clone()
    adam.step()
    assert torch.equal(old, kept) and state["exp_avg"].any()
