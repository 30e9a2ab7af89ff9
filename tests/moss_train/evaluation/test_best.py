"""The file `best`: whatever is evaluated, saved, lost and continued, it names the best checkpoint that is there."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.checkpoint.description import DESCRIPTION, find_checkpoint, read_description, step_name
from moss_train.config.evaluation import EvaluationConfig
from moss_train.evaluation.best import BestCheckpoint, look_up
from moss_train.feed.agreement import CommonError
from moss_train.monitors.base import SaveEvent
from moss_train.parallel.layout import stop_layout
from moss_train.trainer import train
from tests.moss_train.runs import run_config, write_data

VALUES = st.sampled_from([1.0, 2.0, 3.0, math.nan])
ENDINGS = st.sampled_from(["published", "failed", "late", "killed", "killed before the file"])


def _publish(run_dir: Path, step: int) -> None:
    folder = run_dir / "checkpoints" / step_name(step)
    folder.mkdir(parents=True)
    (folder / DESCRIPTION).write_text("{}")


@given(mode=st.sampled_from(["min", "max"]), steps=st.lists(st.tuples(VALUES, ENDINGS), min_size=1, max_size=7))
def test_names_the_best_that_is_published(mode: str, steps: list[tuple[float, str]]) -> None:
    """Every step is evaluated; what becomes of the checkpoint that it may ask for is drawn."""
    settings = EvaluationConfig(best="eval_loss", best_mode=mode)
    sign = 1 if mode == "min" else -1
    with TemporaryDirectory() as name:
        run_dir = Path(name)
        monitor = BestCheckpoint(settings, run_dir, writes=True)
        monitor.started(0, 99)
        known: list[tuple[float, int]] = []  # of published checkpoints, the earlier first where equal
        late: int | None = None
        for step, (value, ending) in enumerate(steps, 1):
            if late is not None:
                monitor.saved(SaveEvent(late, "published"))
                late = None
            monitor.evaluated({"step": step, "eval_loss": value})
            better = not math.isnan(value) and all(sign * value < sign * other for other, _ in known)
            assert monitor.wants_save(step) == better
            if not better:
                continue
            state = json.loads(json.dumps(monitor.state_dict()))
            if ending == "failed":
                monitor.saved(SaveEvent(step, "failed"))
                continue
            _publish(run_dir, step)
            known.append((value, step))
            if ending == "late":
                late = step
                continue
            if ending != "killed before the file":
                monitor.saved(SaveEvent(step, "published"))
            if ending != "published":
                monitor = BestCheckpoint(settings, run_dir, writes=True)
                monitor.load_state_dict(state)
                monitor.started(step, 99)
        if late is not None:
            monitor.saved(SaveEvent(late, "published"))
        best = min(known, key=lambda pair: (sign * pair[0], pair[1]))[1] if known else None
        found = (run_dir / "best").read_text() if (run_dir / "best").exists() else None
        assert found == (None if best is None else step_name(best))


def test_a_checkpoint_that_is_gone_is_not_named(tmp_path: Path) -> None:
    """A run that goes on from before it evaluated the best."""
    settings = EvaluationConfig(best="eval_loss")
    monitor = BestCheckpoint(settings, tmp_path, writes=True)
    earlier = monitor.state_dict()
    _publish(tmp_path, 4)
    monitor.evaluated({"step": 4, "eval_loss": 1.0})
    monitor.saved(SaveEvent(4, "published"))
    assert (tmp_path / "best").read_text() == "step_00000004"
    again = BestCheckpoint(settings, tmp_path, writes=True)
    again.load_state_dict(earlier)
    again.started(2, 9)
    assert not (tmp_path / "best").exists()
    shutil.rmtree(tmp_path / "checkpoints")
    other = BestCheckpoint(EvaluationConfig(best="eval_loss", best_mode="max"), tmp_path, writes=True)
    other.load_state_dict(monitor.state_dict())  # of another figure: not compared with it
    other.evaluated({"step": 5, "eval_loss": 0.5})
    assert other.wants_save(5)


def test_a_better_one_comes_while_the_best_is_being_written(tmp_path: Path) -> None:
    """The later checkpoint cannot be written: the earlier one, published meanwhile, is the best; at the end the later one is
    tried once more."""
    monitor = BestCheckpoint(EvaluationConfig(best="eval_loss"), tmp_path, writes=True)
    monitor.started(0, 9)
    monitor.evaluated({"step": 1, "eval_loss": 3.0})
    monitor.evaluated({"step": 2, "eval_loss": 2.0})
    _publish(tmp_path, 1)
    monitor.saved(SaveEvent(1, "published"))
    monitor.saved(SaveEvent(2, "begun"))
    monitor.saved(SaveEvent(2, "failed"))
    assert (tmp_path / "best").read_text() == step_name(1)
    _publish(tmp_path, 2)
    monitor.saved(SaveEvent(2, "published"))
    assert (tmp_path / "best").read_text() == step_name(2)
    monitor.evaluated({"step": 3, "eval_loss": 2.5})
    assert not monitor.wants_save(3)


def test_a_best_whose_checkpoint_is_gone_competes_no_more(tmp_path: Path) -> None:
    """A later best took its place, and the run goes on from between the two."""
    monitor = BestCheckpoint(EvaluationConfig(best="eval_loss"), tmp_path, writes=True)
    monitor.load_state_dict({"figure": "eval_loss", "small": True, "best": [1.0, 2], "candidate": None})
    monitor.started(4, 9)
    monitor.evaluated({"step": 5, "eval_loss": 1.5})
    assert monitor.wants_save(5)


def test_an_evaluation_after_the_checkpoint(tmp_path: Path) -> None:
    """A signal ended the run after its checkpoint and before its evaluation, which the continued run makes."""
    monitor = BestCheckpoint(EvaluationConfig(best="eval_loss"), tmp_path, writes=True)
    _publish(tmp_path, 4)
    monitor.started(4, 9)
    monitor.evaluated({"step": 4, "eval_loss": 1.0})
    assert not monitor.wants_save(4)
    assert (tmp_path / "best").read_text() == "step_00000004"
    monitor.evaluated({"step": 5, "eval_loss": 2.0})
    assert not monitor.wants_save(5)


def test_a_name_that_no_evaluation_gives_ends_the_run() -> None:
    record = {"step": 0, "eval_loss": 1.0, "eval_dataset_loss": {"a": 2.0}}
    assert look_up(record, "eval_dataset_loss.a") == 2.0
    monitor = BestCheckpoint(EvaluationConfig(best="eval_los"), Path("nowhere"), writes=False)
    with pytest.raises(CommonError, match=r"does not give; use one of eval_loss, eval_dataset_loss\.a"):
        monitor.evaluated(record)
    monitor.evaluated({"step": 1, "eval_streaming_speak_f1": 0.5})  # another evaluation
    settings = EvaluationConfig(best="eval_streaming_x", streaming_every=1, streaming_scenarios="s.jsonl")
    streaming = BestCheckpoint(settings, Path("nowhere"), writes=False)
    streaming.evaluated({"step": 1, "eval_streaming_failed": "no room"})
    with pytest.raises(CommonError, match="use one of eval_streaming_speak_f1"):
        streaming.evaluated({"step": 1, "eval_streaming_speak_f1": 0.5})


@pytest.fixture
def layout_ends() -> Iterator[None]:
    yield
    stop_layout()


def test_best_in_a_run(tmp_path: Path, layout_ends: None) -> None:
    """The largest loss is wanted, which is that of the first step: it is kept though better trained ones come."""
    write_data(tmp_path)
    changes: dict[str, Any] = {"data__global_data_workers": 1, "data__worker_processes": 0}
    changes |= {"train__eval_every": 1, "evaluation__best": "eval_loss", "evaluation__best_mode": "max"}
    train(run_config(tmp_path, tmp_path / "run", steps=4, train__save_every=2, **changes))
    stop_layout()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["eval_loss"] for row in records if "eval_loss" in row}
    assert losses[1] > max(losses[step] for step in (2, 3, 4)), losses
    best = find_checkpoint(f"{tmp_path / 'run'}@best")
    assert best == tmp_path / "run" / "checkpoints" / step_name(1)
    assert read_description(best).monitors["best"]["candidate"] == [losses[1], 1]
    newest = find_checkpoint(tmp_path / "run")
    assert newest.name == step_name(4)
    assert read_description(newest).monitors["best"]["best"] == [losses[1], 1]
    # Weights of the best, as another run would take them.
    changes |= {"train__init_from": f"{tmp_path / 'run'}@best", "stage__gate_init": None}
    train(run_config(tmp_path, tmp_path / "next", steps=1, **changes))
    assert json.loads((tmp_path / "next" / "metrics.jsonl").read_text().splitlines()[0])["eval_loss"] == losses[1]


def test_a_run_without_a_best_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        find_checkpoint(tmp_path / "run@best")
    _publish(tmp_path / "run", 3)
    with pytest.raises(InputError, match=r"no readable file best; give .* or let a run look for the best"):
        find_checkpoint(tmp_path / "run@best")
    (tmp_path / "run" / "best").write_text("step_00000004")
    with pytest.raises(InputError, match="names 'step_00000004', which is no checkpoint"):
        find_checkpoint(tmp_path / "run@best")
    (tmp_path / "run" / "best").write_text("step_00000003\n")
    assert find_checkpoint(f"{tmp_path / 'run'}@best") == tmp_path / "run" / "checkpoints" / "step_00000003"
