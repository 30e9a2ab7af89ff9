"""The benchmark's problems at small dimensions: every form runs and gives what the first one gives."""

from __future__ import annotations

import pytest
import torch

from inference.benchmark.kernel_problems import Dimensions, problems
from inference.benchmark.kernels import difference
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED

SMALL = Dimensions(
    hidden=32,
    inner=48,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocabulary=40,
    tokens_per_frame=5,
    self_page=4,
    rows=(1, 3),
    frames=(2,),
    context=7,
)
PROBLEMS = {f"{p.group}: {p.name} {p.shape['rows']}": p for p in problems(SMALL)}
CHOSEN = [
    "product, fp8: gate_up 3",
    "cross attention: a session a row 3",
    "self attention: one session 3",
    "elementwise: sum and norm 3",
]


@pytest.mark.parametrize("name", CHOSEN if INTERPRETED else list(PROBLEMS))
def test_forms_agree(name: str) -> None:
    torch.manual_seed(0)
    problem = PROBLEMS[name]
    forms = problem.make(torch.device(DEVICE), torch.bfloat16, 2)
    expected = [forms[next(iter(forms))](i) for i in range(2)]
    assert not torch.equal(expected[0], expected[1]) or problem.group == "elementwise", "both copies hold the same"
    for kind, form in forms.items():
        if "scattered" not in kind:
            for i in range(2):
                assert difference(form(i), expected[i]) <= problem.tolerance, kind
