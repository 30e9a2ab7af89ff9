"""The whole kit on the CPU at a size that takes seconds: every part measures, and the file goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from inference.benchmark import workload
from inference.benchmark.command import PARTS, device_trouble
from inference.benchmark.parts import chip
from inference.benchmark.results import read
from moss_train.cli.main import main

SMALLEST = dataclasses.replace(
    workload.WORKLOADS["small"],
    frames=2,
    text_rows=4,
    runs=1,
    new_tokens=3,
    decode_tokens=4,
    legacy_runs=1,
    legacy_tokens=12,
    events=2,
    jitter_seconds=0.2,
    jitter_fps=20.0,
    sessions=2,
    sessions_seconds=0.2,
    sessions_fps=20.0,
    stream_frames=45,
    stream_rows=8,
    position_limit=96,
    correct_frames=2,
    correct_rows=6,
    correct_tokens=4,
    clip_seconds=0.5,
    peer_tokens=2,
    peer_runs=1,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all parts, measured in two calls."""
    path = tmp_path_factory.mktemp("results") / "made" / "inference.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(workload.WORKLOADS, "small", SMALLEST)
        same = ["bench", "inference", "--model", "tiny", "--device", "cpu", "--graphs", "on", "--out", str(path)]
        assert main([*same, "--only", "correctness,decode"]) == 0
        kept = read(path)["parts"]["decode"]
        assert main([*same, "--plot", str(path.with_suffix(".svg"))]) == 0
        assert read(path)["parts"]["decode"] == kept
    return path


def test_every_part_is_measured_and_checked(found: Path) -> None:
    content = read(found)
    assert content["not_measured"] == {} and set(content["parts"]) == set(PARTS)
    assert all(value is not None and value > 0 for value in content["summary"].values())
    for name, part in content["parts"].items():
        assert part["correctness"] == ("yes" if PARTS[name].checked_by else "not compared"), name
        surroundings = part["surroundings"]
        assert surroundings["versions"]["torch"] and surroundings["date"] and surroundings["hardware"]["device"]
        for stage in part.get("roofline", {}).values():
            assert stage["percent"] == pytest.approx(100 * stage["floor_s"] / stage["measured_s"])
    assert found.with_suffix(".svg").read_text().startswith("<svg")


def test_windows_of_the_long_stream_stay_full(found: Path) -> None:
    stream = json.loads(found.read_text())["parts"]["long-stream"]
    kept = stream["runs"]["kept"]
    assert [frames for _, frames, _, _ in kept] == [SMALLEST.window_frames] * 2
    assert all(rows < 3 * 64 and position < SMALLEST.position_limit for _, _, rows, position in kept)
    assert stream["frames"] == len(stream["runs"]["step_s"]) == SMALLEST.stream_frames


def test_tables_are_drawn_from_the_file_alone(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "inference", "--table", str(found)]) == 0
    printed = capsys.readouterr().out
    assert "| this engine |" in printed and "Qwen2.5-VL, tiny, random weights, same device" in printed
    assert printed.count("| - | yes |") == 10 and "greedy tokens equal the full forward's" in printed
    assert "frames a second arrive: P99 / P50" in printed and "GiB in 3,600 frames" in printed and "torch 2" in printed
    assert "first-token-fast: cosine of features with the exact ones 0.9" in printed


def test_a_part_that_breaks_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> float:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(workload.WORKLOADS, "small", SMALLEST)
    monkeypatch.setattr(chip, "copy_bandwidth", breaks)
    path = tmp_path / "found.json"
    same = ["bench", "inference", "--model", "tiny", "--device", "cpu", "--out", str(path)]
    assert main([*same, "--only", "chip,decode"]) == 1
    content = read(path)
    assert content["not_measured"] == {"chip": "failed: RuntimeError: no such kernel"} and list(content["parts"]) == ["decode"]
    assert content["parts"]["decode"]["correctness"] == "not compared"
    monkeypatch.undo()
    monkeypatch.setitem(workload.WORKLOADS, "small", SMALLEST)
    assert main([*same, "--only", "chip"]) == 0
    assert read(path)["not_measured"] == {}


def test_what_the_limit_left_out_is_named_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(workload.WORKLOADS, "small", SMALLEST)
    path = tmp_path / "found.json"
    same = ["bench", "inference", "--model", "tiny", "--device", "cpu", "--out", str(path), "--only", "chip,decode"]
    assert main([*same, "--limit-seconds", "0"]) == 1
    assert read(path)["not_measured"] == dict.fromkeys(["chip", "decode"], "not begun: --limit-seconds 0 had passed")
    assert main(same) == 0
    said = capsys.readouterr().err
    assert "chip: not begun: --limit-seconds 0 had passed" in said
    assert "chip: begins at " in said and "decode: ends at " in said
    assert list(read(path)["parts"]) == ["chip", "decode"] and read(path)["not_measured"] == {}


def test_measuring_nothing_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workload.WORKLOADS, "small", SMALLEST)
    video = tmp_path / "broken.mp4"
    video.write_bytes(b"no video")
    path = tmp_path / "found.json"
    arguments = ["--model", "tiny", "--device", "cpu", "--video", str(video), "--only", "from-file", "--out", str(path)]
    assert main(["bench", "inference", *arguments]) == 1
    content = read(path)
    assert content["parts"] == {} and "broken.mp4" in content["not_measured"]["from-file"]


@pytest.mark.gpu
def test_parts_are_correct_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workload.WORKLOADS, "small", SMALLEST)
    path = tmp_path / "gpu.json"
    parts = [name for name in PARTS if name not in ("peer", "from-file")]
    assert main(["bench", "inference", "--model", "tiny", "--device", "cuda", "--only", ",".join(parts), "--out", str(path)]) == 0
    content = read(path)
    assert content["not_measured"] == {}
    assert {part["correctness"] for part in content["parts"].values()} <= {"yes", "not compared"}


@pytest.mark.parametrize(("message", "told"), [("", "RuntimeError"), ("gone\nstack", "gone")])
def test_a_device_that_answers_no_more_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch, message: str, told: str) -> None:
    def fails(_device: torch.device) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    assert device_trouble(torch.device("cuda")) == (f"not begun: the device answers no more ({told}); run the same command again")
