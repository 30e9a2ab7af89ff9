"""The kernels as Triton's own compiler makes them for Hopper, without a GPU: what the interpreter lets pass ends here."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime.errors import OutOfResources

from inference.benchmark.preflight import main, two_layers, walk_all
from inference.kernels.triton_forms.skinny import Launch, skinny_product
from model.config import VideoMllamaConfig
from model.kernels.compile_only import compile_only, has_compiler
from model.kernels.select import choose_form, multiprocessors

pytestmark = pytest.mark.skipif(not has_compiler(), reason="this build of triton carries no ptxas")
META = torch.device("meta")


def test_a_token_of_the_11b_model_in_fp8() -> None:
    with torch.inference_mode(), compile_only() as found:
        walk_all(two_layers(VideoMllamaConfig()), "fp8", fp8_frames=True, streamed=False, rows=(1,))
    blocks = {"_add_rms_norm", "_heads", "_attend", "_combine", "_one_row", "_quantize"}
    assert {kernel.name for kernel in found} == blocks | {"_best_of_block", "_best_of_row"}
    assert not any(kernel.spills for kernel in found), [kernel.line() for kernel in found if kernel.spills]
    # Loads of one program wait for memory while others compute.
    assert all(kernel.at_once >= 2 for kernel in found), [kernel.line() for kernel in found]
    products = [kernel for kernel in found if kernel.name == "_one_row"]
    assert all(kernel.programs * kernel.constants["BLOCK_OUT"] in (4096, 6144, 14336) for kernel in products)


def test_what_the_gpu_has_not_is_refused() -> None:
    x, weight = (torch.empty(rows, 4096, device=META, dtype=torch.bfloat16) for rows in (16, 256))
    with compile_only(), pytest.raises(OutOfResources, match="shared memory, Required: "):
        skinny_product(x, weight, None, glu=False, launch=Launch(128, 256, 1, stages=6))


def test_only_within_does_the_meta_device_stand_for_a_gpu() -> None:
    assert choose_form(META) == "torch"
    with compile_only():
        assert choose_form(META) == "triton" and multiprocessors(META) == 132
    assert choose_form(META) == "torch" and choose_form(torch.device("cpu")) == "torch"


@pytest.mark.slow
def test_every_kernel_keeps_its_registers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "_gelu_product" in told and "_vision_attention" in told
