"""Kernels of a trace by phase and kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moss_train.bench.train.profile import Span, kind_of, profile_step, short, spans_of, summary
from moss_train.phases import mark


def event(cat: str, name: str, ts: float, dur: float, correlation: int | None = None, tid: int = 1) -> dict[str, Any]:
    args = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def test_a_kernel_belongs_to_the_phase_that_launched_it_from_whichever_thread() -> None:
    events = [
        event("user_annotation", "decode", 100, 50),
        event("user_annotation", "return", 160, 50),
        event("user_annotation", "encode chunk", 165, 5),
        event("cuda_runtime", "cudaLaunchKernel", 110, 1, 1),
        event("cuda_driver", "cuLaunchKernelEx", 140, 1, 2, tid=2),  # autograd's thread
        event("cuda_runtime", "cudaMemcpyAsync", 170, 1, 3),
        event("cuda_runtime", "cudaLaunchKernel", 155, 1, 4),
        event("kernel", "nvjet_tst_128x256", 120, 30, 1),
        event("kernel", "void flash_fwd<...>", 165, 20, 2),  # runs when the host is in the next phase already
        event("gpu_memcpy", "Memcpy HtoD", 180, 10, 3),
        event("kernel", "mystery", 195, 5, 4),
        event("gpu_user_annotation", "decode", 120, 65),
        event("cpu_op", "aten::mm", 108, 5),
    ]
    spans = spans_of(events, cuda=True)
    assert [(s.name, s.phase, s.kind) for s in spans] == [
        ("nvjet_tst_128x256", "decode", "product"),
        ("void flash_fwd<...>", "decode", "attention"),
        ("Memcpy HtoD", "return", "copy"),
        ("mystery", "other", "other"),
    ]
    found = summary(spans, cuda=True)
    assert found["kinds"]["product"] == {"seconds": pytest.approx(30e-6), "calls": 1}
    assert found["busy_seconds"] == pytest.approx(60e-6)  # 120-150, 165-190, 195-200
    assert found["idle_seconds"] == pytest.approx(20e-6)
    assert found["phases"]["decode"] == {"product": pytest.approx(30e-6), "attention": pytest.approx(20e-6)}
    assert found["top"][0]["name"] == "nvjet_tst_128x256"


def test_operators_of_a_cpu_count_without_what_is_within_them() -> None:
    events = [
        event("cpu_op", "aten::linear", 0, 100),
        event("cpu_op", "aten::t", 5, 10),
        event("cpu_op", "aten::addmm", 20, 60),
        event("cpu_op", "aten::copy_", 30, 20),
        event("cpu_op", "aten::gelu", 100, 10),
        event("cpu_op", "aten::mm", 50, 30, tid=2),
    ]
    own = {span.name: span.length for span in spans_of(events, cuda=False)}
    assert own == {"aten::linear": 30, "aten::t": 10, "aten::addmm": 40, "aten::copy_": 20, "aten::gelu": 10, "aten::mm": 30}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_192x128_64x5_2x1_v_bz_coopA_TNN", "product"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "product"),
        ("void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<...>>", "product"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob", "attention"),
        ("kernel_cutlass_kernel_flash_attncuteflash_fwd_sm90FlashAttentionForwardSm90", "attention"),
        ("void transformer_engine::normalization::rmsnorm_fwd_tuned_kernel<...>", "norm"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl...>", "element-wise"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda...>", "copy"),
        ("Memset (Device)", "copy"),
        ("void transformer_engine::multi_tensor_adam::AdamFunctor...", "optimizer"),
        ("void multi_tensor_apply_kernel<L2NormFunctor>", "optimizer"),
        ("_cross_entropy_backward", "loss"),
        ("_row_statistics", "loss"),
        ("_softmax_gradient", "loss"),
        ("_norm_backward", "norm"),
        ("_gelu_backward", "element-wise"),
        ("_column_sums", "element-wise"),
        ("_turn", "copy"),
        ("ncclDevKernel_AllReduce_Sum_f32", "communication"),
        ("aten::mm", "product"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("something", "other"),
    ],
)  # fmt: skip
def test_names_of_kernels_tell_their_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_all_of_the_optimizers_phase_is_the_optimizers() -> None:
    assert Span("aten::mm", 0.0, 1.0, "optimizer").kind == "optimizer"


def test_long_names_are_cut() -> None:
    assert short("void f()") == "f()" and len(short("x" * 500)) == 120


def test_a_real_step_is_seen() -> None:
    a = torch.randn(200, 200)

    def step() -> None:
        with mark("decode"):
            torch.nn.functional.gelu(a @ a)
        with mark("return"):
            (a + 1).sum()

    found = profile_step(step, torch.device("cpu"))
    assert set(found["phases"]) >= {"decode", "return"}
    assert found["phases"]["decode"]["product"] > 0 and "product" not in found["phases"]["return"]
    assert found["of"] == "operators" and found["idle_seconds"] is None
    assert found["busy_seconds"] == pytest.approx(sum(kind["seconds"] for kind in found["kinds"].values()))
