"""A few hundred damaged inputs for every reader on each run; the large numbers are `python -m tests.fuzz.run`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.run import feed, fuzz
from tests.fuzz.targets import Target, all_targets

INPUTS = {"shard": 25, "index": 25, "video": 60, "registry": 100}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return all_targets(tmp_path_factory.mktemp("fuzz"))


NAMES = ("sample", "annotation", "rows", "registry", "subtitles", "ledger", "summary", "image", "video", "shard", "index")


@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs_are_read_or_told(targets: dict[str, Target], name: str) -> None:
    found = fuzz(targets[name], INPUTS.get(name, 200), seed=7)
    assert found["faults"] == [], found["faults"][0]["detail"]
    assert sum(found["outcomes"].values()) == found["inputs"]


def test_every_target_has_its_test(targets: dict[str, Target]) -> None:
    assert set(NAMES) == set(targets)


@given(data=st.binary(max_size=400), number=st.integers(0, 8))
def test_any_bytes_at_all(targets: dict[str, Target], data: bytes, number: int) -> None:
    faults: dict[str, dict[str, str]] = {}
    feed(targets[NAMES[number]], data, faults)
    assert faults == {}


def test_a_crash_is_seen_as_one() -> None:
    def run(data: bytes) -> None:
        raise KeyError("x")

    faults: dict[str, dict[str, str]] = {}
    assert feed(Target([b"a"], run), b"a", faults) == "fault"
    assert next(iter(faults)).startswith("KeyError at test_fuzz.py")


@given(data=st.binary(min_size=1, max_size=100), seed=st.integers())
def test_changes_in_place_keep_the_length(data: bytes, seed: int) -> None:
    assert len(mutate_bytes(data, random.Random(seed), keep_length=True)) == len(data)
