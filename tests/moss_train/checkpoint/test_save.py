"""Disks that refuse a checkpoint: one sentence on all ranks, nothing left of the attempt, the checkpoint before stays."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from moss_train.checkpoint.description import CheckpointDescription, newest_checkpoint
from moss_train.checkpoint.save import save_checkpoint
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig
from moss_train.engines.models import build_models
from moss_train.engines.optimization import Optimization
from moss_train.feed.agreement import CommonError
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from tests.moss_train.packs import tiny_config
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import RunRanks


@pytest.fixture
def save() -> Iterator[Any]:
    """Saves a small model's checkpoint of a step into a folder."""
    start_world(torch.device("cpu"))
    layout = start_layout(ParallelConfig(), torch.device("cpu"), seed=1)
    config = tiny_config()
    models = build_models(config, layout)
    precision = PrecisionConfig(dtype="fp32")
    optimization = Optimization(
        models.chunks, models.unit, models.transformer_config, layout, OptimizerConfig(name="sgd", distributed=False), precision
    )

    def save_step(run_dir: Path, step: int, place: bytes = b"") -> Path:
        description = CheckpointDescription(step=step, model=dataclasses.asdict(config))
        return save_checkpoint(run_dir, description, models.chunks, models.unit, optimization, layout, loader_state=place)

    yield save_step
    stop_layout()
    stop_world()


def test_a_full_disk_keeps_the_checkpoint_before(save: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = save(tmp_path, 1)
    limit = max(file.stat().st_size for file in first.iterdir()) + 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(
            CommonError, match=r"step_00000002 cannot be written \(File too large\); make room or .* continue the run$"
        ):
            save(tmp_path, 2, bytes(limit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest_checkpoint(tmp_path) == first
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == [first.name]
    assert "Traceback" not in capfd.readouterr().err
    assert newest_checkpoint(save(tmp_path, 3, bytes(limit)).parent.parent) == tmp_path / "checkpoints" / "step_00000003"


def test_a_folder_that_cannot_be_made(save: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CommonError, match=r"step_00000001 cannot be written \(Not a directory|File exists\)"):
        save(tmp_path, 1)


@pytest.mark.ranks
def test_all_ranks_end_when_one_cannot_write(tmp_path: Path, run_ranks: RunRanks) -> None:
    write_data(tmp_path, 12)
    config = run_config(
        tmp_path, tmp_path / "run", steps=1, train__eval_batches=0, data__worker_processes=0, checkpoint__end_retry_seconds=0.0
    )
    output = run_ranks("tests.moss_train.checkpoint.refused_ranks", 2, save_run_config(config, tmp_path / "config.yaml"))
    sentences = {rank: line for line in output.splitlines() for rank in "01" if line.startswith(f"rank {rank}: True ")}
    assert sorted(sentences) == ["0", "1"]
    assert sentences["0"][8:] == sentences["1"][8:]
    assert "step_00000001 cannot be written (File too large)" in sentences["0"]
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
