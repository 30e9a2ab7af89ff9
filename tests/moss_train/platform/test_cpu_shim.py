"""The device shim and the stand-ins that make megatron-core run without CUDA."""

from __future__ import annotations

import pytest
import torch

from model.errors import InputError
from moss_train.platform import install
from moss_train.platform.cpu_shim import is_cuda_device
from moss_train.platform.device import backend_of, resolve_device
from moss_train.platform.fused_adam import FusedAdam

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the shim is only installed without CUDA")


def test_install_is_repeatable_and_devices_lead_to_the_cpu() -> None:
    assert install() and install()
    assert torch.cuda.current_device() == 0
    made = [torch.zeros(2, device=torch.cuda.current_device()), torch.arange(3, device="cuda"), torch.ones(1).to("cuda:0")]
    assert {tensor.device.type for tensor in made} == {"cpu"}
    assert torch.ones(2).cuda().device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "expected"),
    [(0, True), (True, False), ("cuda:1", True), ("cpu", False), (None, False), (torch.device("cpu"), False)],
)
def test_which_device_arguments_mean_a_gpu(device: object, expected: bool) -> None:
    assert is_cuda_device(device) is expected


def test_manual_seed_reaches_the_one_generator() -> None:
    install()
    torch.cuda.manual_seed(5)
    first = torch.rand(3)
    state = torch.cuda.get_rng_state()
    torch.cuda.manual_seed_all(5)
    assert torch.equal(torch.rand(3), first)
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_fused_adam_equals_torch_adamw(weight_decay: float) -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    a = FusedAdam(ours, lr=1e-2, weight_decay=weight_decay)
    b = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=weight_decay)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)
    assert a.param_groups[0]["step"] == 5
    assert set(a.state[ours[0]]) == {"exp_avg", "exp_avg_sq"}


def test_device_choice() -> None:
    assert backend_of(resolve_device("auto")) == "gloo"
    with pytest.raises(InputError, match="no CUDA device"):
        resolve_device("cuda")
