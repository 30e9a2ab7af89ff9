"""Monitors one by one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from moss_train.monitors.base import SaveEvent
from moss_train.monitors.metrics_file import MetricsFile
from moss_train.monitors.progress import ProgressBar, duration, figures, short


def record(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "loss": 1.5, "learning_rate": 1e-3, "grad_norm": 1.0, "seconds": 0.1} | values


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_metrics_file_writes_each_nth_and_the_last(tmp_path: Path) -> None:
    monitor = MetricsFile(tmp_path / "m.jsonl", every=2)
    monitor.started(0, 5)
    monitor.evaluated({"step": 0, "eval_loss": 2.0})
    for step in range(1, 6):
        monitor.stepped(record(step))
    monitor.finished()
    assert steps_in(tmp_path / "m.jsonl") == [0, 2, 4, 5]


def test_metrics_file_drops_what_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (0, 1, 2, 3)) + '{"step": 4, "lo')
    monitor = MetricsFile(path, every=1)
    monitor.started(2, 5)
    monitor.stepped(record(3))
    monitor.finished()
    assert steps_in(path) == [0, 1, 2, 3]
    assert json.loads(path.read_text().splitlines()[-1])["loss"] == 1.5


def test_progress_prints_lines_without_a_terminal() -> None:
    out = io.StringIO()
    monitor = ProgressBar("pt1", Console(file=out, force_terminal=False, width=200), opening="10.7G parameters")
    monitor.started(0, 3)
    monitor.evaluated({"step": 0, "eval_loss": 2.25})
    for step in (1, 2, 3):
        monitor.stepped(record(step))
    monitor.saved(SaveEvent(3, "begun"))
    monitor.saved(SaveEvent(3, "published", path=Path("step_00000003")))
    monitor.finished()
    text = out.getvalue()
    assert "pt1  10.7G parameters; begins, 3 steps in all" in text and text.count("checkpoint step_00000003") == 1
    assert "held-out loss 2.2500" in text and "pt1  3/3  loss 1.5000" in text and "pt1  2/3" not in text


def test_progress_bar_on_a_terminal() -> None:
    out = io.StringIO()
    monitor = ProgressBar("pt1", Console(file=out, force_terminal=True, width=160))
    monitor.started(1, 3)
    monitor.stepped(record(2))
    monitor.stepped(record(3))
    monitor.finished()
    assert "3/3" in out.getvalue() and "loss 1.5000" in out.getvalue()


def test_what_the_bar_says_of_a_step() -> None:
    full = record(7, tokens_per_second=12345.0, frames_per_second=88.0, frames=4, mfu=0.413, data_share=0.02, eta_seconds=3725.0)
    assert figures(full) == "loss 1.5000  12.3k tok/s  88 frames/s  MFU 41%  data wait 2%  0.10 s/step  left 1:02:05"
    assert figures(record(1, skipped=True)) == "loss 1.5000  skipped  0.10 s/step"
    assert [short(v) for v in (0.5, 999.0, 1e3, 2.5e6, 7e9)] == ["0.5", "999", "1k", "2.5M", "7G"]
    assert [duration(v) for v in (4.4, 59.6, 61.0, 3600.0, 90061.0)] == ["4 s", "1:00", "1:01", "1:00:00", "1 d 1:01:01"]
