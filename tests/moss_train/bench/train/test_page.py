"""The benchmark's page out of files of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moss_train.bench.train.page import SUMMARY, blocks, main, merge, put, summary
from moss_train.bench.train.rates import PHASES

REPOSITORY = Path(__file__).resolve().parents[4]
PAGE = REPOSITORY / "docs/benchmarks/training-h200.md"


def case(precision: str = "bf16", rate: float = 400.0, **values: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": f"pt2 {precision}, 4,096 rows, 64 frames", "stage": "pt2", "precision": precision, "rows": 4096,
        "frame_count": 64, "optimizer": "none", "micro_batches": 1, "data": "synthetic",
        "seconds": {**dict.fromkeys(PHASES, 0.1), "step": 0.7},
        "host_seconds": {"encode": 0.1, "decode": 0.2, "return": 0.1}, "spread": {"least": 0.6, "median": 0.7, "most": 0.8},
        "tflops": {"model": rate, "decoder": rate + 100, "vision_forward": rate + 50, "vision_backward": None, "hardware": rate,
                   "by_part": dict.fromkeys(("vision", "projector", "text", "cross", "head"), 1.0)},
        "flops": {"model": dict.fromkeys(("vision", "projector", "text", "cross", "head", "total"), 1e12)},
        "mfu": {"peak": 0.4, "product": None, "sustained": 0.5}, "per_second": {"tokens": 5000.0, "frames": 90.0},
        "data_wait_share": 0.001, "memory": {"peak": 2**35},
    }  # fmt: skip
    return made | values


def results(*cases: dict[str, Any], left_out: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {
        "command": "moss bench train", "date": "2026-11-28", "hardware": {"device": "NVIDIA H200"}, "versions": {"torch": "2.11"},
        "cases": list(cases), "left_out": list(left_out),
    }  # fmt: skip


def test_the_summary_has_its_keys_and_null_where_nothing_was_measured() -> None:
    nothing = summary({kind: [] for kind in ("train", "full", "reference", "convergence", "plan")})
    assert nothing == dict.fromkeys(SUMMARY) and len(SUMMARY) == 11


def test_the_summary_speaks_of_the_newest_step_and_of_one_with_an_optimizer_before_others() -> None:
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("full", "reference", "convergence", "plan")}
    other = [
        case(rate=900.0, frame_count=8),
        case(rate=900.0, rows=8192),
        case(rate=950.0, data="/shards"),
        case(rate=960.0, stage="pt1"),
        case(rate=970.0, frame_count=256),
    ]
    runs["train"] = [results(case(rate=410.0), *other), results(case(rate=420.0), {"name": "x", "failed": "out of memory"})]
    assert summary(runs)["step64_tflops_bf16"] == 420.0 and summary(runs)["step64_tflops_fp8"] is None
    runs["train"].insert(0, results(case(rate=405.0, optimizer="compact"), case("fp8", rate=500.0)))
    runs["full"] = [
        {"summary": {"full11b_tflops": 391.23456, "full11b_peak_gib": 128.0, "other": 1.0}},
        {"summary": {"full11b_tflops": 385.0, "full11b_peak_gib": 119.0}},  # one that saves
        {"summary": {}},  # one that only resumes
    ]
    runs["reference"] = [{"summary": {"ratio_64_bf16": 1.4, "ratio_mixture": None}}]
    assert summary(runs) == {
        "decoder_tflops_bf16": 1000.0, "decoder_tflops_fp8": 600.0, "vision_forward_tflops": 455.0, "step64_tflops_bf16": 405.0,
        "step64_tflops_fp8": 500.0, "full11b_tflops": 391.235, "full11b_peak_gib": 128.0, "ratio_64_bf16": 1.4,
        "ratio_64_fp8": None, "ratio_256_bf16": None, "ratio_mixture": None,
    }  # fmt: skip


def test_files_become_one_and_the_pages_tables(tmp_path: Path) -> None:
    train, full, page = tmp_path / "train.json", tmp_path / "full.json", tmp_path / "page.md"
    train.write_text(json.dumps(results(case(), {"name": "big", "optimizer": "none", "failed": "out of memory: 99 GiB"})))
    table = {"title": "Memory", "header": ["phase", "GiB"], "rows": [["encode", "100.1"]]}
    full.write_text(json.dumps({"command": "python -m full", "summary": {"full11b_peak_gib": 128.0}, "tables": [table]}))
    end = "<!-- end -->\n"
    page.write_text(f"# Title\n<!-- table: rates -->\nold\n{end}prose\n<!-- table: full -->\n{end}<!-- table: plan -->\n{end}")
    assert main(["--train", str(train), "--full", str(full), "--page", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text and "prose" in text and "| pt2 bf16, 4,096 rows, 64 frames | 700.0 |" in text
    assert "Memory:\n\n| phase | GiB |" in text and "<!-- table: plan -->\n\nNot measured.\n" in text
    content = json.loads((tmp_path / "page.json").read_text())
    assert list(content["summary"]) == list(SUMMARY) and content["train"][0]["cases"][1]["failed"] == "out of memory: 99 GiB"
    assert main(["--check", "--page", str(page)]) == 0
    page.write_text(text.replace("100.1", "100.2"))
    assert main(["--check", "--page", str(page)]) == 1
    assert main(["--tables", "--page", str(page)]) == 0 and page.read_text() == text


def test_an_unknown_marker_or_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: rate -->\n<!-- end -->\n")
    assert main(["--page", str(page)]) == 2
    assert "the page has the marker 'rate'; use one of summary" in capsys.readouterr().err
    assert main(["--train", str(tmp_path / "none.json"), "--page", str(page)]) == 2
    assert "none.json does not exist" in capsys.readouterr().err


def test_the_committed_pages_tables_are_its_files() -> None:
    text = PAGE.read_text(encoding="utf-8")
    target = PAGE.with_suffix(".json")
    content = json.loads(target.read_text()) if target.exists() else merge({})
    assert put(text, blocks(content)) == text
    assert list(content["summary"]) == list(SUMMARY)


def test_kinds_without_files_stay_as_they_are(tmp_path: Path) -> None:
    page, new = tmp_path / "page.md", tmp_path / "new.json"
    page.write_text("<!-- table: summary -->\n<!-- end -->\n")
    before = {kind: [] for kind in ("full", "reference", "convergence", "plan")}
    full = [{"summary": {"full11b_tflops": 391.0}}]
    page.with_suffix(".json").write_text(json.dumps({**before, "full": full, "train": [results(case(rate=1.0))]}))
    new.write_text(json.dumps(results(case(rate=450.0))))
    assert main(["--page", str(page), "--merge", "--train", str(new)]) == 0
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["full"] == full and len(found["train"]) == 1
    assert found["summary"]["step64_tflops_bf16"] == 450.0 and found["summary"]["full11b_tflops"] == 391.0
    assert main(["--page", str(page), "--train", str(new)]) == 0
    assert json.loads(page.with_suffix(".json").read_text())["full"] == []
