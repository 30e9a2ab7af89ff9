"""What the DeepSpeed engine is told, what it refuses, and how ranks are made to run the same modules."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from model.rows import IGNORE_INDEX, PackedRows
from moss_train.config.compose import choices, compose
from moss_train.engines.deepspeed.idle import add_idle, plan_calls
from moss_train.engines.deepspeed.package import load_deepspeed
from moss_train.engines.deepspeed.settings import library_settings
from tests.moss_train.packs import make_pack, tiny_config

HIDDEN = 4096


def _told(*overrides: str) -> dict[str, Any]:
    return library_settings(compose(["stage=pt1", "engine=deepspeed", *overrides]), HIDDEN, micro_batches=3)


def test_the_default_preset_is_the_reference_s_zero_2() -> None:
    told = _told("precision.grad_reduce_fp32=false")
    assert told["zero_optimization"] == {
        "stage": 2,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": HIDDEN * HIDDEN,
        "allgather_partitions": True,
        "allgather_bucket_size": 100_000_000,
    }
    assert told["gradient_clipping"] == 1.0 and told["bf16"] == {"enabled": True}
    assert told["train_micro_batch_size_per_gpu"] == 1 and told["gradient_accumulation_steps"] == 3
    assert "communication_data_type" not in told and "scheduler" not in told and "optimizer" not in told


def test_all_presets_compose() -> None:
    stages = {name: _told(f"deepspeed={name}")["zero_optimization"] for name in choices("deepspeed")}
    assert {name: zero["stage"] for name, zero in stages.items()} == {
        "zero1": 1, "zero2": 2, "zero2_offload": 2, "zero3": 3, "zero3_offload": 3,
    }  # fmt: skip
    assert {name for name, zero in stages.items() if "offload_optimizer" in zero} == {"zero2_offload", "zero3_offload"}
    assert {name for name, zero in stages.items() if "offload_param" in zero} == {"zero3_offload"}
    assert stages["zero3"]["stage3_prefetch_bucket_size"] == int(0.9 * HIDDEN * HIDDEN)
    assert stages["zero3"]["stage3_param_persistence_threshold"] == 10 * HIDDEN
    assert _told("deepspeed=zero3", "deepspeed.param_persistence_threshold=0")["zero_optimization"][
        "stage3_param_persistence_threshold"
    ] == 0  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["parallel=tp2"], "parallel.tensor is 2"),
        (["parallel=pp2"], "parallel.pipeline is 2"),
        (["parallel=cp2"], "parallel.context is 2"),
        (["stage=warm_vision"], "dense_labels"),
        (["precision=fp8"], "fp8"),
        (["deepspeed.zero_stage=0"], "optimizer.distributed=false"),
        (["deepspeed.offload_param=cpu"], "deepspeed.zero_stage=3"),
        (["deepspeed.offload_optimizer=nvme"], "none, cpu"),
        (["deepspeed.reduce_bucket_size=0"], "at least 1"),
        (["optimizer.name=muon", "optimizer.distributed=false"], "adam or sgd"),
        (["optimizer.ema_decay=0.9"], "engine=megatron"),
        (["optimizer.offload=0.5"], "deepspeed.offload_optimizer=cpu"),
        (["deepspeed=zero3", "vision.keep_mode=attention"], "vision.keep_mode=all"),
        (["vision.keep_host_gib=4"], "vision.keep_host_gib is 4 with engine deepspeed"),
        (["deepspeed=zero3", "train.steps=0"], "train.steps is 0"),
        (["deepspeed=zero3", "guard.check_copies_every=5"], "no copies"),
    ],
)
def test_what_it_does_not_do_is_refused(overrides: list[str], wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        compose(["stage=pt1", "engine=deepspeed", *overrides])


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "deepspeed":
            raise ImportError("No module named 'deepspeed'")
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'moss-train\[deepspeed\]'"):
        load_deepspeed(torch.device("cpu"))


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=1, max_size=4)),
       st.integers(1, 4))  # fmt: skip
def test_ranks_call_the_tower_equally_often(frames: list[list[int]], chunk: int) -> None:
    """Every call has a frame, none more than `chunk`, and blank frames are as few as that needs."""
    plans = [plan_calls(frames, rank, chunk) for rank in range(len(frames))]
    assert len({tuple(call.tower for call in plan) for plan in plans}) == 1
    for counts, plan in zip(frames, plans, strict=True):
        for own, call in zip(counts, plan, strict=True):
            if not any(map(any, frames)):
                assert (call.tower, call.idle) == (0, 0)
                continue
            assert call.tower >= 1
            sizes = [len(part) for part in torch.arange(own + call.idle).tensor_split(call.tower)]
            assert min(sizes) >= 1 and max(sizes) <= chunk
            assert call.idle == max(0, call.tower - own)


@given(st.integers(0, 3), st.sampled_from([[(9, 3), (4, 0)], [(16, 0)]]))
def test_blank_frames_stand_behind_everything(idle: int, samples: list[tuple[int, int]]) -> None:
    config = tiny_config()
    rows = PackedRows.of(make_pack(config, 1, samples, 24))
    longer = add_idle(rows, idle, config.image_token_id)
    assert longer.num_rows == rows.num_rows + idle and longer.num_frames == rows.num_frames + idle
    for name in ("input_ids", "position_ids", "frame_begin", "frame_end", "targets"):
        before, after = getattr(rows, name), getattr(longer, name)
        assert torch.equal(after[: rows.num_rows], before) and after.dtype == before.dtype
    assert longer.targets is not None and bool((longer.targets[rows.num_rows :] == IGNORE_INDEX).all())
    own = range(rows.num_frames, rows.num_frames + idle)
    assert longer.frame_begin[rows.num_rows :].tolist() == [rows.num_frames] * idle
    assert longer.frame_end[rows.num_rows :].tolist() == [frame + 1 for frame in own]
    assert longer.cu_seqlens.tolist() == rows.cu_seqlens.tolist() + [longer.num_rows] * bool(idle)
    assert longer.cu_frames.tolist() == rows.cu_frames.tolist() + [longer.num_frames] * bool(idle)
