"""Parameters that several ranks hold: equal after real updates in every layout, and a single flipped bit is found and named."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_train.guards.copies import checksum
from tests.ranks import RunRanks

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.uint8)


@given(st.integers(1, 500), st.data(), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1))
def test_any_bit_and_any_exchange_changes_it(size: int, data: st.DataObject, dtype: torch.dtype, seed: int) -> None:
    raw = torch.randint(0, 256, (size * dtype.itemsize,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    before = checksum(raw.view(dtype))
    assert before.equal(checksum(raw.clone().view(dtype)))
    changed = raw.clone()
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    after = checksum(changed.view(dtype))
    assert after[0] != before[0] and after[1] != before[1]
    one, two = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    values = raw.view(dtype).clone()
    exchanged = values.clone()
    exchanged[one], exchanged[two] = values[two], values[one]
    if not exchanged.view(torch.uint8).equal(raw):
        assert not checksum(exchanged).equal(before)


@pytest.mark.ranks
@pytest.mark.parametrize("layouts", [("tp2",), pytest.param(("tp2.sp", "pp2", "cp2"), marks=pytest.mark.slow)])
def test_copies_on_ranks(run_ranks: RunRanks, layouts: tuple[str, ...]) -> None:
    output = run_ranks("tests.moss_train.guards.copies_ranks", 4, *layouts, timeout=150)
    found = json.loads(next(line for line in output.splitlines() if "COPIES " in line).split("COPIES ", 1)[1])
    assert len(found) == 3 * len(layouts)
    for name, case in found.items():
        assert case["equal"] == case["between"] == case["equal_again"] == "", (name, case)
        flipped = [value for key, value in case.items() if key.startswith("flipped")]
        assert len(flipped) == len(case["groups"]) == (3 if name.startswith("tp2") else 2), name
        for parameter, sentence in flipped:
            assert sentence.startswith(f"after step 10 parameter {parameter} ") and "rank" in sentence, (name, sentence)
        *_, (_, vision) = flipped
        assert "on rank 3 differs from the copies on ranks 0-2" in vision
