"""States in fewer bytes: what stays equal, what does not, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from model.errors import InputError
from moss_train.checkpoint.optimizer_state import _precision_aware
from moss_train.config.optimizer import OptimizerConfig, check_optimizer, remembers
from moss_train.config.schema import ParallelConfig, PrecisionConfig
from moss_train.engines.optimizer.bytes import optimizer_bytes
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device
from moss_train.platform.fused_adam import FusedAdam
from tests.moss_train.engines.optimizer_ranks import COMMON, build, whole_states
from tests.moss_train.updates import LEARNING_RATE, STEPS, global_batch, make_step


@pytest.fixture(scope="module")
def layout() -> Iterator[ParallelLayout]:
    stop_layout()
    device = resolve_device("auto")
    start_world(device)
    yield start_layout(ParallelConfig(), device, 1)
    stop_layout()


def trained(
    layout: ParallelLayout, steps: int = STEPS, **settings: object
) -> tuple[dict[str, torch.Tensor], list[float], set[torch.dtype]]:
    """fp32 weights and losses of a few bf16 updates, and the dtypes of the states kept."""
    models, optimization = build(layout, OptimizerConfig(**(COMMON | settings)), "bf16")  # type: ignore[arg-type]
    step = make_step(models, optimization, layout, 1)
    losses = []
    for i in range(steps):
        losses.append(step.accumulate(global_batch(i)).loss)
        optimization.set_learning_rates(LEARNING_RATE, LEARNING_RATE)
        optimization.update()
    kept = {
        values.dtype
        for optimizer in optimization.optimizer.chained_optimizers
        for state in optimizer.optimizer.state.values()
        for values in state.values()
    }
    return whole_states(optimization, models, "weight"), losses, kept


def test_halves_of_weights_train_as_whole_ones(layout: ParallelLayout) -> None:
    """The same fp32 weights bit for bit; then a bf16 weight may differ where the fp32 one lies exactly between two, once in
    65,536, and what is computed with it."""
    whole, _, kept = trained(layout, steps=1)
    halves, _, kept_halves = trained(layout, steps=1, master="remainders")
    assert kept == {torch.float32} and kept_halves == {torch.float32, torch.int16}
    assert whole.keys() == halves.keys() and all(torch.equal(whole[name], halves[name]) for name in whole)
    _, losses, _ = trained(layout)
    _, other, _ = trained(layout, master="remainders")
    assert max(abs(a - b) / b for a, b in zip(other, losses, strict=True)) < 1e-3


def test_bf16_moments_follow(layout: ParallelLayout) -> None:
    _, losses, _ = trained(layout)
    _, other, kept = trained(layout, moments="bf16", master="remainders", beta2=0.98, ema_decay=0.5)
    assert kept == {torch.bfloat16, torch.int16, torch.float32}  # fp32 is the average
    assert max(abs(a - b) / b for a, b in zip(other, losses, strict=True)) < 2e-2


def test_second_moments_in_bf16_fall_only_where_beta2_lets_them() -> None:
    """After one large gradient and 100 without, the second moment is beta2^100 of itself, or stands still."""
    for beta2, falls in ((0.999, False), (0.99, True)):
        weight = torch.nn.Parameter(torch.ones(64))
        adam = FusedAdam([weight], betas=(0.9, beta2), exp_avg_sq_dtype=torch.bfloat16, exp_avg_dtype=torch.bfloat16)
        weight.grad = torch.linspace(1.0, 2.0, 64)
        adam.step()
        first = adam.state[weight]["exp_avg_sq"].clone()
        weight.grad = torch.zeros(64)
        for _ in range(100):
            adam.step()
        assert bool((adam.state[weight]["exp_avg_sq"] < 0.5 * first).all()) == falls == remembers(beta2)
        assert falls or torch.equal(adam.state[weight]["exp_avg_sq"], first)


def test_stand_in_is_torch_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    settings = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    first, second = FusedAdam([ours], **settings), torch.optim.AdamW([theirs], **settings)  # type: ignore[arg-type]
    for i in range(5):
        for parameter, optimizer in ((ours, first), (theirs, second)):
            parameter.grad = torch.sin(torch.arange(50.0) + i)
            optimizer.step()
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "dtype", "message"),
    [
        ({"master": "remainders"}, "fp32", "optimizer.master is remainders with precision.dtype fp32, it needs bf16"),
        ({"offload": 0.5}, "fp32", "optimizer.offload is 0.5 with precision.dtype fp32"),
        ({"moments": "bf16", "distributed": False}, "bf16", "optimizer.distributed false; use optimizer.distributed=true"),
        ({"moments": "bf16", "name": "sgd", "distributed": False}, "bf16", "it is for adam only"),
        ({"offload": 0.5, "moments": "bf16"}, "bf16", "a CPU's Adam knows fp32 only"),
        ({"name": "muon"}, "bf16", "muon, which needs whole matrices; use false"),
        ({"name": "sgd"}, "bf16", "sgd, which has no state to shard; use false"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, object], dtype: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_optimizer(OptimizerConfig(**settings), PrecisionConfig(dtype=dtype))  # type: ignore[arg-type]


def test_what_this_machine_lacks(layout: ParallelLayout) -> None:
    if layout.device.type == "cuda":
        pytest.skip("a GPU lacks none of it")
    with pytest.raises(InputError, match="needs Transformer Engine and a GPU"):
        build(layout, OptimizerConfig(moments="fp8"), "bf16")
    with pytest.raises(InputError, match="the run is on the CPU already; use 0"):
        build(layout, OptimizerConfig(offload=0.5), "bf16")


def test_bytes_of_states(layout: ParallelLayout) -> None:
    """What the table says is what the optimizers keep."""
    for values in (
        {}, {"moments": "bf16"}, {"master": "remainders"}, {"moments": "bf16", "master": "remainders", "ema_decay": 0.9},
        {"name": "sgd", "distributed": False, "momentum": 0.9},
    ):  # fmt: skip
        for dtype in ("fp32", "bf16"):
            if dtype == "fp32" and values.get("master"):
                continue
            settings, precision = OptimizerConfig(**(COMMON | values)), PrecisionConfig(dtype=dtype)  # type: ignore[arg-type]
            models, optimization = build(layout, dataclasses.replace(settings), dtype)
            make_step(models, optimization, layout, 1).accumulate(global_batch(0))
            optimization.set_learning_rates(LEARNING_RATE, LEARNING_RATE)
            optimization.update()
            kept, parameters = 0, 0
            for optimizer in optimization.optimizer.chained_optimizers:
                kept += sum(v.numel() * v.element_size() for s in optimizer.optimizer.state.values() for v in s.values())
                for group in getattr(optimizer, "shard_fp32_from_float16_groups", []) + getattr(
                    optimizer, "fp32_from_float16_groups", []
                ):
                    kept += sum(4 * p.numel() for p in group if p is not None)
            modules: list[torch.nn.Module] = [*models.chunks, models.unit]
            parameters = sum(p.numel() for module in modules for p in module.parameters())
            assert kept / parameters == pytest.approx(optimizer_bytes(settings, precision).shared), (values, dtype)


def test_bytes_of_the_choices() -> None:
    """18 bytes a parameter of a plain bf16 run on one rank, 10 with everything small."""
    plain = optimizer_bytes(OptimizerConfig(), PrecisionConfig())
    assert plain.on_device() == 18.0 and plain.on_device(8) == 2 + 4 + 12 / 8
    small = optimizer_bytes(OptimizerConfig(moments="bf16", master="remainders"), PrecisionConfig(grad_reduce_fp32=False))
    assert small.on_device() == 10.0 and small.on_device(4) == 4 + 6 / 4
    offloaded = optimizer_bytes(OptimizerConfig(offload=1.0), PrecisionConfig())
    assert offloaded.on_device() == 6.0 and offloaded.on_host(2) == 8.0


def test_a_moment_in_bf16_is_saved_in_bf16() -> None:
    """Transformer Engine notes a scale of 1 for it, as for every state that is not fp32."""
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    inner = FusedAdam([weight], exp_avg_dtype=torch.bfloat16, exp_avg_sq_dtype=torch.bfloat16, master_weights=True)
    inner.initialize_state(weight)
    inner._scales[weight] = {name: torch.ones(1) for name in ("exp_avg", "exp_avg_sq")}
    state = _precision_aware(inner, weight, weight, 0)
    assert {name: values.dtype for name, values in state.tensors.items()} == {
        "exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16, "param": torch.float32,
    }  # fmt: skip
    assert state.tensors["exp_avg"].data_ptr() == inner.state[weight]["exp_avg"].data_ptr(), "it is filled in place"
