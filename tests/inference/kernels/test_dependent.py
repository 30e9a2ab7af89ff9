"""Kernels that begin early: the rule that makes them right, read from their sources; on a GPU the bits of ordinary launches."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from inference.kernels.triton_forms import gates, heads, norms, paged_attention, skinny
from inference.kernels.triton_forms.dependent import EARLY, LATE, OFF, dependent_launches, launch_options
from model.kernels.compile_only import compile_only, has_compiler

KERNELS = {
    function.__name__: function
    for module in (skinny, norms, heads, gates, paged_attention)
    for function in vars(module).values()
    if getattr(function, "__module__", "") == module.__name__ and "DEPENDENT" in getattr(function, "arg_names", ())
    if function.__name__ != "_fetch"
}
STABLE = {"weight_ptr", "session_ptr", "limit_ptr", "table_ptr"}
"""What may be read before the wait: weights, and integers of the step."""


def _calls(node: ast.AST, *names: str) -> list[ast.Call]:
    return [one for one in ast.walk(node) if isinstance(one, ast.Call) and ast.unparse(one.func) in names]


def _body(kernel: Callable[..., None]) -> list[ast.stmt]:
    tree = ast.parse(inspect.getsource(kernel.fn))  # type: ignore[attr-defined]
    assert isinstance(tree.body[0], ast.FunctionDef)
    return tree.body[0].body


def test_the_kernels_of_a_step_take_part() -> None:
    assert set(KERNELS) == {
        "_one_row",
        "_rows",
        "_add_shares",
        "_add_rms_norm",
        "_heads",
        "_silu_and_multiply",
        "_attend",
        "_combine",
    }


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_program_waits_before_it_reads_results_or_writes(name: str) -> None:
    body = _body(KERNELS[name])
    assert _calls(body[0], "announce", "enter"), "the next kernel may come when every program has begun"
    # At the top level of the kernel: no branch passes it by.
    waits = [i for i, line in enumerate(body) if isinstance(line, ast.Expr) and _calls(line, "wait", "enter")]
    assert len(waits) == 1
    before = body[: waits[0]]
    assert not any(isinstance(one, ast.Return) for line in body for one in ast.walk(line))
    assert not any(_calls(line, "tl.store", "tl.atomic_add") for line in before)
    for call in (call for line in before for call in _calls(line, "tl.load")):
        names = {one.id for one in ast.walk(call.args[0]) if isinstance(one, ast.Name) and one.id.endswith("_ptr")}
        assert names and names <= STABLE, f"{ast.unparse(call)} may read what the kernel in front is still writing"


def test_one_row_alone_begins_early_unless_told() -> None:
    meta, cpu = torch.device("meta"), torch.device("cpu")
    early, ordinary = {"DEPENDENT": EARLY.value, "launch_pdl": True}, {"DEPENDENT": OFF.value}
    assert launch_options(meta, 1) == early and launch_options(meta, 2) == launch_options(cpu, 1) == ordinary
    with dependent_launches(True):
        assert launch_options(meta, 16) == early and launch_options(cpu, 16) == ordinary
        with dependent_launches(False):
            assert launch_options(meta, 1) == ordinary
        with dependent_launches(LATE.value):
            assert launch_options(meta, 1) == {"DEPENDENT": LATE.value, "launch_pdl": True}


@pytest.mark.skipif(not has_compiler(), reason="this build of triton carries no ptxas")
def test_they_compile_for_hopper() -> None:
    x, weight = (torch.empty(rows, 4096, device="meta", dtype=torch.bfloat16) for rows in (1, 256))
    launch = skinny.Launch(4, 1024, 1, dot=False, ahead=16384)
    with dependent_launches(True), compile_only() as found:
        skinny.skinny_product(x, weight, None, glu=False, launch=launch)
        norms.add_rms_norm(x[:, :512], x[:, :512], weight[0, :512], 1e-5, None)  # a size that no other test compiles
    assert [kernel.constants["DEPENDENT"] for kernel in found] == [EARLY.value, EARLY.value]
    assert all(kernel.stack == 0 for kernel in found)


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [0, 16384])
@pytest.mark.parametrize("how", [EARLY.value, LATE.value])
@pytest.mark.parametrize("rows", [1, 16])
def test_the_same_bits_on_a_gpu(rows: int, how: int, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain in which each kernel reads the last one's result at once, in graphs and without, many times over."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs compute capability 9.0")
    generator = torch.Generator("cuda").manual_seed(rows)
    width, inner = 4096, 8192

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda").div(shape[-1] ** 0.5).bfloat16()

    layers = [(drawn(width, width), drawn(2 * inner, width), drawn(width, inner)) for _ in range(4)]
    norm = torch.rand(width, generator=generator, device="cuda").bfloat16()
    first = torch.randn(rows, width, generator=generator, device="cuda").bfloat16()

    def chain() -> torch.Tensor:
        h, change = first * 1, first
        for square, gate_up, down in layers:
            h, x = norms.add_rms_norm(h, change, norm, 1e-5, None)
            h, x = norms.add_rms_norm(h, skinny.skinny_product(x, square, None, glu=False), norm, 1e-5, None)
            change = skinny.skinny_product(skinny.skinny_product(x, gate_up, None, glu=True), down, None, glu=False)
        return torch.add(h, change)

    with dependent_launches(False):
        expected = chain()
    usual = skinny.launch_shape
    monkeypatch.setattr(skinny, "launch_shape", lambda *args, **options: replace(usual(*args, **options), ahead=ahead))
    with dependent_launches(how):
        assert all(torch.equal(chain(), expected) for _ in range(20))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = chain()
    for _ in range(50):
        found.zero_()
        graph.replay()
        assert torch.equal(found, expected)
