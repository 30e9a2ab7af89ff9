"""Further attempts: how many, how long the pauses are, and what is said in the end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.storage.errors import StorageError
from data_pipeline.storage.patience import PassingFault, Patience
from moss_train.config.schema import StorageConfig


@given(attempt=st.integers(1, 2000), backoff=st.floats(0.001, 10))
def test_pauses_double_with_some_chance_and_have_an_end(attempt: int, backoff: float) -> None:
    pause = Patience(backoff_seconds=backoff).pause(attempt)
    doubled = backoff * 2.0 ** min(attempt - 1, 60)
    assert min(60, doubled) * 0.49 <= pause <= min(60, doubled) * 1.51


def test_pauses_leave_the_generator_of_the_samples_alone() -> None:
    before = random.getstate()
    Patience().pause(3)
    assert random.getstate() == before


@pytest.mark.parametrize(("failures", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_what_passes_in_time_is_not_noticed(failures: int, attempts: int) -> None:
    made: list[int] = []

    def read() -> str:
        made.append(1)
        if len(made) <= failures:
            raise PassingFault("the connection broke")
        return "content"

    assert Patience.of(StorageConfig(retries=3, backoff_seconds=0.001)).persist(read, "s3://b/x") == "content"
    assert len(made) == attempts


def test_what_does_not_pass_ends_with_all_that_a_user_needs() -> None:
    made: list[int] = []

    def read() -> None:
        made.append(1)
        raise PassingFault("the server answered 503")

    with pytest.raises(
        StorageError, match=r"s3://b/x cannot be read: the server answered 503 \(3 attempts, data\.storage\.retries = 2\); check"
    ):
        Patience(retries=2, backoff_seconds=0.001).persist(read, "s3://b/x")
    assert len(made) == 3
