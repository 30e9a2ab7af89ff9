"""Every backend computes the formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.kernels.vision_attention import traced_vision_attention, vision_attention
from inference.vision.attention.choose import BACKENDS, Backend, backend_problem, choose_backend, trial_problem
from inference.vision.attention.keys import count_keys
from model.errors import InputError

CPU = torch.device("cpu")


def _qkv(dtype: torch.dtype, device: str, keys: int = 21) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 17, 4, 80), (2, keys, 4, 80), (2, keys, 4, 80)]
    return [torch.randn(s, generator=generator).to(device, dtype).transpose(1, 2) for s in sizes]


def test_the_formula_by_hand() -> None:
    q, k, v = _qkv(torch.float32, "cpu")
    got = choose_backend("plain", CPU, torch.float32).attend(q, k, v)
    weights = torch.exp(q[1, 2, 5] @ k[1, 2].T / 80**0.5)
    torch.testing.assert_close(got[1, 5, 160:240], weights @ v[1, 2] / weights.sum(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(choose_backend("auto", CPU, torch.float32).attend(q, k, v), got, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["flash", "cudnn", "efficient"])
def test_kernels_called_by_name_take_these_arguments(name: str) -> None:
    """On the device that computes nothing: what a call refuses there, it refuses on a GPU."""
    from importlib import import_module

    out = import_module(f"inference.vision.attention.{name}").attend(*_qkv(torch.bfloat16, "meta"))
    assert out.shape == (2, 17, 320)


def test_backends_of_gpus_are_refused_elsewhere() -> None:
    assert [name for name in BACKENDS if backend_problem(name, "cpu") is None] == ["plain", "sdpa"]
    with pytest.raises(InputError, match="vision attention cudnn cannot be used: cuDNN runs on CUDA devices only; use auto"):
        choose_backend("cudnn", CPU, torch.float32)


def test_a_trial_tells_backends_that_work_from_others() -> None:
    def refuses(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("No execution plans support the graph\n at line 3")

    attend = choose_backend("sdpa", CPU, torch.float32).attend
    for dtype in (torch.float32, torch.bfloat16):
        assert trial_problem(attend, CPU, dtype, 80) == ""
    assert trial_problem(refuses, CPU, torch.bfloat16, 80) == "RuntimeError: No execution plans support the graph"
    unscaled = trial_problem(lambda q, k, v: attend(1.25 * q, k, v), CPU, torch.float32, 80)
    shifted = trial_problem(lambda q, k, v: attend(q, k, v.roll(1, 2)), CPU, torch.float32, 80)
    assert unscaled.startswith("its numbers are off by") and shifted.startswith("its numbers are off by")


@given(tokens=st.integers(1, 30), times=st.lists(st.integers(1, 40), min_size=30, max_size=30), seed=st.integers(0, 99))
def test_to_weigh_keys_is_to_repeat_them(tokens: int, times: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 2, 3, tokens, 16, generator=generator)
    keys = count_keys(torch.arange(tokens).repeat_interleave(torch.tensor(times[:tokens])), tokens)
    assert torch.equal(keys.log2_counts, torch.tensor(times[:tokens]).float().log2())
    weighing = Backend("weighing", vision_attention, True, takes_counts=True)
    repeating = choose_backend("plain", CPU, torch.float32)
    got, expected = weighing.attend_counted(q, k, v, keys), repeating.attend_counted(q, k, v, keys)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weighing.attend_counted(q, k, v, None), repeating.attend(q, k, v), atol=1e-5, rtol=1e-5)


def test_one_node_of_a_graph_takes_views_and_counts() -> None:
    q, k, v = (x.transpose(1, 2) for x in torch.randn(3, 2, 21, 4, 16))
    checks = ("test_schema", "test_faketensor")
    for arguments in ((q, k, v), (q[:, :, :5], k, v, torch.rand(21))):
        found = torch.library.opcheck(traced_vision_attention, arguments, test_utils=checks)
        assert found == dict.fromkeys(checks, "SUCCESS")


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [21, 978])
def test_counts_on_the_device(tokens: int) -> None:
    problem = backend_problem("triton", "cuda")
    if problem is not None:
        pytest.skip(problem)
    q, k, v = _qkv(torch.bfloat16, "cuda", tokens)
    times = torch.randint(1, 40, (tokens,), generator=torch.Generator().manual_seed(0))
    keys = count_keys(torch.arange(tokens).repeat_interleave(times).cuda(), tokens)
    expected = choose_backend("plain", CPU, torch.float32).attend_counted(q.float(), k.float(), v.float(), keys)
    got = choose_backend("triton", torch.device("cuda"), torch.bfloat16).attend_counted(q, k, v, keys)
    torch.testing.assert_close(got.float(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("keys", [17, 21, 1608])
@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "plain"])
def test_backends_on_the_device(name: str, keys: int) -> None:
    problem = backend_problem(name, "cuda")
    if problem is not None:
        pytest.skip(problem)
    q, k, v = _qkv(torch.bfloat16, "cuda", keys)
    expected = choose_backend("plain", CPU, torch.float32).attend(q.float(), k.float(), v.float())
    got = choose_backend(name, torch.device("cuda"), torch.bfloat16).attend(q, k, v)
    torch.testing.assert_close(got.float(), expected, atol=2e-2, rtol=2e-2)
