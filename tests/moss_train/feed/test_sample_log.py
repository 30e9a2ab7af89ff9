"""The keys of every step, over replicas, continued runs and cut lines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from moss_train.feed.sample_log import SampleLog, read_sample_log
from tests.moss_train.packs import make_pack, tiny_config

PACK = make_pack(tiny_config(), 0, [(3, 0), (2, 0)], 8)  # two samples and padding


def _batch(step: int, number: int) -> PackedMicroBatch:
    return dataclasses.replace(PACK, sample_keys=[f"é/{step}-{number}-a", f"é/{step}-{number}-b", ""])


def _train(run_dir: Path, first: int, last: int, replicas: int, size: int) -> None:
    """Steps of a run on so many replicas; a global batch is `size` micro-batches."""
    logs = [SampleLog(run_dir, replica, replicas) for replica in range(replicas)]
    for step in range(first, last):
        for replica, log in enumerate(logs):
            log.write(step, [_batch(step, number) for number in range(replica, size, replicas)])
    for log in logs:
        log.close()


def _expected(steps: int, size: int) -> dict[int, list[list[str]]]:
    return {step: [[f"é/{step}-{n}-a", f"é/{step}-{n}-b"] for n in range(size)] for step in range(1, steps)}


@given(parts=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from([1, 2, 4])), min_size=1, max_size=4))
def test_files_of_a_run_that_changed_its_size(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, int, int]]
) -> None:
    """Each part continues some steps before the end of the one before, on another number of replicas."""
    run_dir, step = tmp_path_factory.mktemp("run"), 1
    for steps, back, replicas in parts:
        first = max(1, step - back)
        _train(run_dir, first, step + steps, replicas, size=4)
        step += steps
    assert read_sample_log(run_dir) == _expected(step, 4)


def test_a_killed_run_leaves_half_a_line_and_half_a_step(tmp_path: Path) -> None:
    _train(tmp_path, 1, 3, replicas=2, size=2)
    SampleLog(tmp_path, 0, 2).write(3, [_batch(3, 0)])  # the other replica never came to it
    with (tmp_path / "samples_00001.jsonl").open("a") as file:
        file.write('{"step": 3, "micro_b')
    assert read_sample_log(tmp_path) == _expected(3, 2)
    _train(tmp_path, 3, 5, replicas=2, size=2)
    assert read_sample_log(tmp_path) == _expected(5, 2)
    whole = [line for line in (tmp_path / "samples_00001.jsonl").read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["step"] for line in whole] == [1, 2, 3, 4]


def test_a_repeated_step_with_other_samples_is_said(tmp_path: Path) -> None:
    _train(tmp_path, 1, 3, replicas=1, size=2)
    log = SampleLog(tmp_path, 0, 1)
    log.write(2, [_batch(2, 0), _batch(9, 9)])
    log.close()
    with pytest.raises(InputError, match=r"é/9-9-a, é/9-9-b in micro-batch 1 of step 2, where the run had é/2-1-a"):
        read_sample_log(tmp_path)


def test_a_run_without_a_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.log_samples=true"):
        read_sample_log(tmp_path)
