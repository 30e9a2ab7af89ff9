"""Results that name no folder of the machine that made them."""

from __future__ import annotations

import pytest

from moss_train.bench.plain import without_folders


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ('  File "/opt/moss/model/rows.py", line 3', '  File "rows.py", line 3'),
        (
            "moss bench full --save /dev/shm/full --out /tmp/results/full.json",
            "moss bench full --save /dev/shm/full --out full.json",
        ),
        ("data.root=/scratch/shards/", "data.root=shards"),
        ("TFLOP/s and GB/s of 16/32, out/full.json, https://example.org/a/b", None),
    ],
)
def test_absolute_paths_become_names(given: str, kept: str | None) -> None:
    expected = given if kept is None else kept
    assert without_folders({"a": [given, 3, (given,)], "b": None}) == {"a": [expected, 3, [expected]], "b": None}
