"""`train.deterministic`: the same steps twice are the same bit for bit, and what cannot promise that is not taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from model.attention.cross.attention import check_training
from model.errors import InputError
from model.vision.fused.attention import CHANGING, choose
from moss_train.bench.packs import stage_pack
from moss_train.bench.subject import overrides_of, subject
from moss_train.config.compose import compose
from moss_train.platform.deterministic import set_deterministic

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    yield
    set_deterministic(False)
    if workspace is None:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    else:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


def _steps(
    device: torch.device, *more: str, model: str, precision: str, rows: int, frames: int, wanted: bool = True
) -> list[Any]:
    """Losses, gradients' norms and weights behind three updates."""
    chosen = f"train.deterministic={str(wanted).lower()}"
    config = compose([*overrides_of("pt2", model=model, precision=precision), chosen, *more])
    with subject(config, device) as made:
        found: list[Any] = []
        for seed in range(3):
            statistics = made.step.accumulate([stage_pack(made.model_config, "pt2", rows, frames, seed)])
            made.optimization.set_learning_rates(1e-3, 1e-3)
            found.append((statistics.loss, made.optimization.update()))
        modules = (*made.models.chunks, made.models.unit)
        return [*found, [p.detach().cpu().clone() for module in modules for p in module.parameters()]]


def _assert_same(first: list[Any], second: list[Any]) -> None:
    assert first[:-1] == second[:-1]
    assert all(torch.equal(a, b) for a, b in zip(first[-1], second[-1], strict=True))


def test_no_operator_of_a_step_refuses_and_steps_repeat() -> None:
    first, second = (_steps(CPU, model="tiny", precision="fp32", rows=96, frames=6) for _ in range(2))
    assert torch.are_deterministic_algorithms_enabled()
    assert len({loss for loss, _ in first[:-1]}) == 3
    _assert_same(first, second)


def _assert_close(first: list[Any], second: list[Any], loss: float, norm: float) -> None:
    """Of each step, relative."""
    for ours, theirs in zip(first[:-1], second[:-1], strict=True):
        assert ours[0] == pytest.approx(theirs[0], rel=loss) and ours[1] == pytest.approx(theirs[1], rel=norm)


def test_steps_are_those_of_other_kernels_within_rounding() -> None:
    sizes: dict[str, Any] = {"model": "tiny", "precision": "fp32", "rows": 96, "frames": 6}
    _assert_close(_steps(CPU, **sizes), _steps(CPU, wanted=False, **sizes), 1e-6, 1e-5)


def test_the_process_is_switched_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_backend_that_adds_in_changing_order_is_refused() -> None:
    set_deterministic(True)
    with pytest.raises(InputError, match=r"attention\.cross is flash with train\.deterministic true.*use attention\.cross=auto"):
        check_training("flash", torch.device("cuda"), torch.bfloat16, 128)


@pytest.mark.gpu
def test_steps_repeat_on_the_gpu() -> None:
    device = torch.device("cuda", 0)
    sizes: dict[str, Any] = {"model": "small", "precision": "bf16", "rows": 1024, "frames": 8}
    more = ("vision.layers=fused", "vision.keep_activations_gib=0.5")
    first, second = (_steps(device, *more, **sizes) for _ in range(2))
    _assert_same(first, second)
    assert choose(device, torch.bfloat16, 16, 80).name not in CHANGING


@pytest.mark.gpu
def test_steps_on_the_gpu_are_those_of_other_kernels_within_rounding() -> None:
    """Text that attended to nothing, as with flash-attn-4 inside Transformer Engine, had a norm a quarter off."""
    device = torch.device("cuda", 0)
    sizes: dict[str, Any] = {"model": "small", "precision": "bf16", "rows": 1024, "frames": 8}
    _assert_close(_steps(device, **sizes), _steps(device, wanted=False, **sizes), 5e-3, 3e-2)


@pytest.mark.gpu
def test_gradients_summed_beside_the_return_are_the_same_bits() -> None:
    device = torch.device("cuda", 0)
    sizes: dict[str, Any] = {"model": "small", "precision": "bf16", "rows": 1024, "frames": 8}
    before, beside = (_steps(device, f"train.overlap_grad_reduce={word}", **sizes) for word in ("false", "true"))
    _assert_same(before, beside)
