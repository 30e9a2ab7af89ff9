"""The micro-batches that attention is measured on."""

from __future__ import annotations

import numpy as np
import pytest

from moss_train.bench.workloads import WORKLOADS, growing, mixture, offline


def test_a_growing_prefix_is_half_of_all_pairs() -> None:
    made = growing(4096, 256)
    assert abs(made.seen / (4096 * 256) - 0.5) < 0.01
    assert made.end[0] == 1 and made.end[-1] == 256 and (np.diff(made.end) >= 0).all()


def test_offline_rows_see_everything_behind_the_video() -> None:
    made = offline(4096, 256)
    assert made.end[:3].tolist() == [1, 2, 3]
    assert (made.end[255:] == 256).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_keeps_samples_apart(seed: int) -> None:
    made = mixture(3000, 128, seed)
    assert made.rows == 3000 and made.bounds[-1] == 3000 and made.frames <= 128
    used = 0
    for first, last in zip(made.bounds[:-1], made.bounds[1:], strict=True):
        assert (made.begin[first:last] == used).all()
        used = max(used, int(made.end[first:last].max()))
    assert used == made.frames


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_ranges_stay_inside_the_frames(name: str) -> None:
    made = WORKLOADS[name](100, 7)
    assert made.rows == 100 and (made.begin >= 0).all() and (made.end <= made.frames).all()
