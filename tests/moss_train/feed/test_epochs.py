"""Samples and passes by dataset: what the metrics count is what the log of samples lists, over a resumption too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_train.checkpoint.description import read_description
from moss_train.feed.sample_log import read_sample_log
from moss_train.parallel.layout import stop_layout
from moss_train.trainer import train
from tests.moss_train.resume_ranks import leave_as_killed, rows
from tests.moss_train.runs import run_config, write_data

SAMPLES = 24  # of each dataset


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    """Each run starts its own layout."""
    yield
    stop_layout()


def test_counts_go_on_where_a_run_is_continued(tmp_path: Path) -> None:
    write_data(tmp_path)

    def run(run_dir: Path) -> None:
        stop_layout()
        changes = {"data__global_data_workers": 1, "data__worker_processes": 0, "data__log_samples": True, "data__seed": 5}
        train(run_config(tmp_path, run_dir, "pt2", 5, train__save_every=3, train__eval_batches=0, **changes))

    run(tmp_path / "whole")
    leave_as_killed(tmp_path / "whole", tmp_path / "killed")
    run(tmp_path / "killed")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert read_sample_log(tmp_path / "killed") == read_sample_log(tmp_path / "whole")  # the repeated steps agree
    log, used = read_sample_log(tmp_path / "killed"), Counter[str]()
    for row in rows(tmp_path / "killed"):
        used.update(key.split("/")[0] for batch in log[row["step"]] for key in batch)
        assert row["dataset_samples"] == {name: used[name] for name in ("text", "video", "image")}
        assert row["dataset_epochs"] == {name: used[name] / SAMPLES for name in ("text", "video", "image")}
        assert 0 <= row["padding"] < 1
    assert len(log) == 5 and all(used.values())
    assert read_description(tmp_path / "killed" / "checkpoints" / "step_00000005").samples == dict(used)
