"""A real run: what it records is documented, drawn and laid out, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from moss_train.cli.main import main
from moss_train.monitors.names import METRICS, documented, flatten, name_of
from moss_train.monitors.panels import SECTIONS, sections_for
from moss_train.monitors.wandb_file import read_history, wandb_files
from moss_train.report.workspace import build_workspace, recorded_names, workspace_of
from tests.moss_train.runs import run_config, write_data
from tests.ranks import REPOSITORY

GPU_ONLY = {"speed/mfu"}
SELDOM = {"data/left_out/*"} | {metric.name for metric in METRICS if metric.name.startswith(("train/skip", "train/rew"))}
"""Recorded where an update was left out, or a sample."""
OFTEN = ("train/", "loss_by_class/", "grad_norm/", "learning_rate/", "speed/", "time/", "data/", "memory/", "flops/", "eval/")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with all monitors, in two processes of the trainer, and a dense warm start."""
    from moss_train.parallel.layout import stop_layout
    from moss_train.parallel.world import stop_world
    from moss_train.trainer import train

    root = tmp_path_factory.mktemp("recorded")
    write_data(root)
    common: dict[str, Any] = {"train__eval_every": 2, "logging__wandb": "offline", "logging__gradient_norms_every": 2}
    modules = [{"name": "gates", "learning_rate_multiplier": 2.0}]
    config = run_config(root, root / "full", steps=4, train__save_every=2, optimizer__modules=modules, **common)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=6))
    for one in (config, longer, run_config(root, root / "dense", "warm_vision", steps=2, **common)):
        train(one)
        stop_layout()
    stop_world()
    return {"full": root / "full", "dense": root / "dense"}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def names_of(folder: Path) -> set[str]:
    return {name for record in records(folder) for name in flatten(record)} - {"step"}


def test_the_page_of_metrics_is_the_table() -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.*?) ?\| (.+) \|$", text, flags=re.MULTILINE)
    assert [(key, name, unit.strip(), meaning) for key, name, unit, meaning in rows] == [tuple(metric) for metric in METRICS]


def test_what_is_recorded_is_documented_and_the_other_way_round(runs: dict[str, Path]) -> None:
    recorded = set().union(*map(names_of, runs.values()))
    assert [name for name in sorted(recorded) if not documented(name)] == []
    patterns = {metric.name for metric in METRICS} - GPU_ONLY - SELDOM
    missing = [p for p in patterns if not any(name == p or (p.endswith("/*") and name.startswith(p[:-1])) for name in recorded)]
    assert missing == []
    for prefix in OFTEN:
        assert any(name.startswith(prefix) for name in names_of(runs["full"])), prefix


def test_wandb_has_what_metrics_jsonl_has(runs: dict[str, Path]) -> None:
    histories = [read_history(path) for path in wandb_files(runs["full"] / "wandb")]
    rows = [row for _, found in histories for row in found]
    assert len(histories) == 2 and len({identity for identity, _ in histories}) == 1
    assert [row["step"] for row in rows] == list(range(7))
    for record in records(runs["full"]):
        expected = flatten(record)
        assert {name: rows[record["step"]].get(name) for name in expected} == expected


def test_panels_name_recorded_metrics_and_show_all_of_them(runs: dict[str, Path]) -> None:
    for folder in runs.values():
        recorded = recorded_names(folder)
        assert recorded == names_of(folder)
        workspace = workspace_of(folder, entity="team")
        panels = [panel for section in workspace["sections"] for panel in section["panels"]]
        shown = [name for panel in panels for name in panel["metrics"]]
        assert set(shown) == recorded and all(panel["metrics"] for panel in panels)
    used = {panel.title for section in sections_for(names_of(runs["full"]) | names_of(runs["dense"])) for panel in section.panels}
    declared = {panel.title for section in SECTIONS for panel in section.panels}
    assert declared - used <= {"Model FLOPs utilisation", "Updates left out", "Samples left out"}


def test_the_workspace_is_one_that_wandb_takes(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    built = build_workspace(workspace_of(runs["full"]), "team")
    sent = built._to_model().model_dump_json()
    assert "grad_norm/cross_layers" in sent and "Loss by token class" in sent and built.project == "moss-train"
    assert main(["wandb", "dashboard", str(runs["full"]), "--dry-run", "--project", "other"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == workspace_of(runs["full"], project="other")
    assert main(["wandb", "dashboard", str(runs["full"].parent)]) == 2
    assert "give the folder of a run" in capsys.readouterr().err


def test_the_page_of_the_run(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = (runs["full"] / "report.html").read_text(encoding="utf-8")  # written by the run itself
    charts = re.findall(r'aria-label="([^"]+)"', page)
    panels = [panel.title for section in sections_for(names_of(runs["full"])) for panel in section.panels]
    assert charts == panels and len(charts) > 20
    assert "<td>restarts</td><td>from step 4</td>" in page and "checkpoint published" in page and "stroke-dasharray" in page
    assert "megatron-core" in page and "gradient_norms_every: 2" in page and "<script" not in page and "http-equiv" not in page
    assert main(["report", str(runs["full"]), "--out", str(runs["full"] / "again.html")]) == 0
    assert capsys.readouterr().out.strip() == str(runs["full"] / "again.html")
    assert (runs["full"] / "again.html").read_text(encoding="utf-8") == page


def test_events_tell_starts_saves_and_ends(runs: dict[str, Path]) -> None:
    events = [json.loads(line) for line in (runs["full"] / "events.jsonl").read_text().splitlines()]
    kinds = [(event["event"], event["step"]) for event in events if event["event"] in ("started", "ended")]
    assert kinds == [("started", 0), ("ended", 4), ("started", 4), ("ended", 6)]
    published = [event["step"] for event in events if event["event"] == "checkpoint published"]
    assert published == [2, 4, 6] and all(event["stall_seconds"] >= 0 for event in events if "stall_seconds" in event)


def test_names_of_keys() -> None:
    assert name_of("loss") == "train/loss" and name_of("loss_silence") == "loss_by_class/silence"
    assert name_of("eval_loss_text") == "eval/loss_by_class/text" and name_of("eval_streaming_f1") == "eval/streaming_f1"
    record = {"step": 3, "loss": 1.0, "skipped": True, "note": "text", "new": {"a": 1, "b": {"c": 2.5}}, "places": [1, 2]}
    assert flatten(record) == {"step": 3, "train/loss": 1.0, "train/skipped": 1, "other/new/a": 1, "other/new/b/c": 2.5}
