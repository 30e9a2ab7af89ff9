"""The file of results: parts join it, other runs are refused, the summary and the tables say what the parts say."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from inference.benchmark.command import PARTS, Limit, Part, chosen_parts
from inference.benchmark.results import SUMMARY, Results, find_problem, read
from inference.benchmark.table import TARGETS, floors, write_tables
from inference.benchmark.workload import WORKLOADS
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.token_times import draw, token_gaps
from moss_train.cli.main import EXIT_BAD_INPUT, main

SETUP = {"model": "tiny", "workload": {"frames": 2}, "dtype": "torch.float32", "seed": 0, "graphs": False}
SHARED = {"surroundings": {}, "seconds_taken": 1.0, "correctness": "yes"}


def test_parts_join_a_file_and_the_summary_follows(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    first = Results(path, SETUP)
    first.add("first-token", {**SHARED, "ttft_s": 1.25})
    first.miss("peer", "no transformers")
    first.miss("first-token", "not this time")
    second = Results(path, SETUP)
    second.add("stream", {**SHARED, "frame_p95_s": 0.03, "prompt_p95_s": 0.01})
    second.add("sessions", {**SHARED, "tokens_per_second": {"slowest": 80.0}, "statistics": {"frame_latency_s": {"p95": 0.1}}})
    second.add("peer", {**SHARED})
    content = read(path)
    measured = {name: value for name, value in content["summary"].items() if value is not None}
    assert measured == {
        "ttft_exact_s": 1.25,
        "ttft_stream_p95_ms": 30.0,
        "prompt_to_token_p95_ms": 10.0,
        "sessions16_tps": 80.0,
        "sessions16_frame_p95_ms": 100.0,
    }
    assert list(content["parts"]) == ["first-token", "stream", "sessions", "peer"] and content["not_measured"] == {}
    assert list(tmp_path.iterdir()) == [path]


def test_single_measurements_are_short_and_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    runs = {"gap_s": [0.123456789, 1e-05, 3], "kept": [(1, 2), (3, 4)], "name": ["a", "b"]}
    Results(path, SETUP).add("decode", {**SHARED, "tokens_per_second": 0.123456789, "runs": runs})
    decode = read(path)["parts"]["decode"]
    assert decode["runs"] == {"gap_s": [0.1234568, 1e-05, 3], "kept": [[1, 2], [3, 4]], "name": ["a", "b"]}
    assert decode["tokens_per_second"] == 0.123456789
    assert '"gap_s": [0.1234568, 1e-05, 3],\n' in path.read_text()


def test_parts_of_another_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    Results(path, SETUP).add("chip", SHARED)
    before = path.read_text()
    with pytest.raises(InputError, match=r"found.json holds parts with seed 0, this run has 3; give another file to --out"):
        Results(path, {**SETUP, "seed": 3})
    assert path.read_text() == before


def _content(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "one.json"
    Results(path, SETUP).add("decode", {**SHARED, "tokens_per_second": 200.0})
    return read(path)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda c: c.update(format="else"), "does not say format"),
        (lambda c: c.pop("seed"), "seed is missing"),
        (lambda c: c["parts"]["decode"].pop("correctness"), "part decode has no correctness"),
        (lambda c: c["summary"].pop("peak_gib"), "summary has"),
        (lambda c: c["summary"].update(decode_tps_bf16=999.0), "says something else than the parts"),
    ],
)
def test_damaged_files_are_told_from_good_ones(tmp_path: Path, damage: Any, problem: str) -> None:
    content = _content(tmp_path)
    assert find_problem(content) == ""
    damaged = copy.deepcopy(content)
    damage(damaged)
    assert problem in find_problem(damaged)


def test_every_number_of_the_summary_has_a_target_and_a_floor_below_it() -> None:
    least = floors(VideoMllamaConfig(), WORKLOADS["full"])
    assert list(TARGETS) == list(SUMMARY) and set(least) == set(SUMMARY)
    for name, target in TARGETS.items():
        assert target.holds(target.aim, target.must) and not target.holds(target.must, target.aim), name
        assert target.holds(least[name], target.aim), name
        assert target.part in PARTS
    assert least["ttft_exact_s"] == pytest.approx(1.007, abs=1e-3)
    # 21.34 GB of weights, 0.847 GB of frames, 576 rows of 131,072 B
    assert least["peak_gib"] == pytest.approx((21.3404 + 0.8472 + 0.0755) / 1.073742, abs=0.01)
    assert least["sessions16_tps"] == pytest.approx(167, abs=1)
    # 3.061 + 0.0199 TF at 790 TF/s, then a step of 5.99 ms
    assert least["sessions16_frame_p95_ms"] == pytest.approx(3.900 + 5.985, abs=0.01)


def test_tables_hold_targets_only_for_the_full_measurement(tmp_path: Path) -> None:
    content = _content(tmp_path)
    content["workload"] = json.loads(json.dumps(WORKLOADS["full"].__dict__))
    line = "| decoding, bf16 (tokens/s) | 200 | - | - |"
    assert line in write_tables(content)
    content["model"] = "11b"
    rated = write_tables(content)
    assert re.search(r"\| decoding, bf16 \(tokens/s\) \| 200 \| 150 \| 175 \| 22\d\.?\d* \| yes \|", rated)
    content["summary"]["decode_tps_bf16"] = 149.0
    assert "| 149 (missed) | 150 |" in write_tables(content)


def test_a_partial_file_has_tables_with_what_is_missing_named(tmp_path: Path) -> None:
    sizes = json.loads(json.dumps(WORKLOADS["small"].__dict__))
    printed = write_tables({**_content(tmp_path), "workload": sizes})
    assert printed.count("| not measured |") == 9 and "| decoding, bf16 (tokens/s) | 200 |" in printed
    results = Results(tmp_path / "two.json", {**SETUP, "workload": sizes})
    results.miss("decode", "not begun: --limit-seconds 5 had passed")
    assert "* decode: not begun: --limit-seconds 5 had passed" in write_tables(read(tmp_path / "two.json"))
    one = {"ttft_s": 8.0, "ttft_p95_s": 8.0, "tokens_per_second": 30.0, "total_s": 24.5, "tokens": 256, "model": "another"}
    results.add("peer", {**SHARED, **one})
    printed = write_tables(read(tmp_path / "two.json"))
    assert "| this engine | not measured |" in printed and "| another, random weights, same device | 8 |" in printed
    assert "| reference, published | 1.954 | 1.957 | 38.41 | 28.51 | 946 |" in printed


def test_no_part_begins_that_would_end_behind_the_limit() -> None:
    part = Part("", "chip", seconds=30)
    begun = time.monotonic() - 100
    assert Limit(begun).problem(part) == "" and Limit(begun, 200, rated=True).problem(part) == ""
    assert Limit(begun, 120).problem(part) == ""
    assert Limit(begun, 120, rated=True).problem(part).startswith("not begun: it takes 30 s")
    assert Limit(begun, 90).problem(part) == "not begun: --limit-seconds 90 had passed"


def test_the_page_gives_the_estimates_of_all_parts() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "benchmark-protocol.md").read_text(encoding="utf-8")
    told: dict[str, bool] = {}
    for least, most, names in re.findall(r"^\| (\d+)(?: to (\d+))? \| (.*) \|$", page, re.MULTILINE):
        for name in re.findall(r"`([a-z0-9-]+)`", names):
            told[name] = float(least) <= PARTS[name].seconds <= float(most or least)
    assert told == dict.fromkeys(told, True) and set(told) == set(PARTS)


def test_parts_run_in_their_order() -> None:
    assert chosen_parts(None) == list(PARTS)
    assert chosen_parts(" decode ,chip,") == ["chip", "decode"]
    assert all(callable(part.load()) and (not part.checked_by or part.checked_by in PARTS) for part in PARTS.values())


def test_a_chart_shows_the_parts_with_times_of_tokens(tmp_path: Path) -> None:
    content = _content(tmp_path)
    content["parts"]["decode"]["runs"] = [[0.001, 0.002, 0.001], [0.5]]
    content["parts"]["jitter"] = {**SHARED, "runs": [{"gap_s": [0.003, 0.004], "frame_latency_s": []}]}
    content["parts"]["long-stream"] = {**SHARED, "runs": {"step_s": [0.2, 0.3], "memory_gib": []}}
    gaps = {"decode": [0.001, 0.002, 0.001], "jitter": [0.003, 0.004], "long-stream, by frame": [0.2, 0.3]}
    assert token_gaps(content) == gaps
    assert draw(content).count("<polyline") == 3
    with pytest.raises(InputError, match="measure the part decode"):
        draw({"parts": {"chip": SHARED}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "decode,speed"], "--only has 'speed'; use some of chip, correctness"),
        (["--only", ","], "--only is empty"),
        (["--model", "12b"], "--model is '12b'; use 11b, tiny or the folder of a checkpoint"),
        (["--model", "tiny", "--sessions", "0"], "--sessions is 0; it must be at least 1"),
        (["--model", "tiny", "--runs", "0"], "--runs is 0; it must be at least 1"),
        (["--model", "tiny", "--video", "/nowhere.mp4"], "--video /nowhere.mp4 does not exist"),
        (["--model", "tiny", "--limit-seconds", "-1"], "--limit-seconds is -1; it must be at least 0"),
        (["--model", "tiny", "--out", "/"], "--out / is a folder"),
        (["--table", "/nowhere.json"], "cannot be read as JSON"),
        (["--plot", "times.svg"], "give --out or --table as well"),
    ],
)
def test_bad_arguments_end_with_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "inference", *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err
