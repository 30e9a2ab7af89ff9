"""`moss bench reference` whole at a size that the CPU steps in a moment, and what its tables make of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from moss_train.bench.reference import measure
from moss_train.bench.reference.cases import Model
from moss_train.bench.reference.ratios import computed_ranks_ratio, mixture_ratio, ratio_of, told
from moss_train.bench.reference.run import Comparison
from moss_train.bench.train.page import blocks, merge
from moss_train.cli.main import EXIT_BAD_INPUT, main

SMALL = ["bench", "reference", "--model", "tiny", "--precision", "fp32", "--steps", "2", "--device", "cpu"]


def measured(out: Path, *words: str) -> dict[str, Any]:
    assert main([*SMALL, "--out", str(out), *words]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_both_sides_step_on_the_same_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "reference.json"
    found = measured(out, "--frames", "3,6", "--rows", "48,64", "--mixture", "sft_realtime", "--mixture-samples", "4")
    cases = {(case["side"], case["kind"], case["frame_count"]): case for case in found["cases"]}
    assert len(cases) == 6 and not found["left_out"] and not any("failed" in case for case in found["cases"])
    for frames in (3, 6):
        theirs, ours = (cases[side, "sample", frames] for side in ("reference", "ours"))
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5), "the same weights and sample"
        assert theirs["flops"] == ours["flops"] > 0 and theirs["frames"] == ours["frames"] == frames
        assert ours["frames_per_second"] == pytest.approx(frames / ours["seconds"])
        assert ratio_of(found, ours).here == pytest.approx(theirs["seconds"] / ours["seconds"])
        assert "attention.cross=dense" in theirs["overrides"] and "attention.cross=dense" not in ours["overrides"]
    theirs, ours = (cases[side, "mixture", 0] for side in ("reference", "ours"))
    assert theirs["samples"] == ours["samples"] and theirs["packs"] == 4 and ours["packs"] < 4
    assert theirs["flops"] == ours["flops"] and sum(theirs["step_frames"]) == sum(ours["step_frames"]) == ours["frames"]
    assert mixture_ratio(found, "fp32") == pytest.approx(theirs["seconds"] / ours["seconds"])
    assert sum(theirs["all_seconds"]) == pytest.approx(theirs["seconds"])
    assert computed_ranks_ratio(found, "fp32") == pytest.approx(4 * max(theirs["all_seconds"]) / ours["seconds"])
    assert found["tables"] == told(found)["tables"] and found["hardware"]["device"] and found["command"]
    assert "one sample" in capsys.readouterr().out
    assert main(["bench", "reference", "--table", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(f"### {table['title']}" in printed for table in found["tables"])
    page = "\n".join(blocks(merge({"reference": [out]}))["reference"])
    assert "6 frames, 64 rows: ours, fp32" in page


def test_samples_without_memory_are_left_out_on_both_sides(tmp_path: Path) -> None:
    step = measure.Meter.step

    def short(meter: measure.Meter, batch: Any) -> float:
        if len(batch.sample_keys) == 1 and batch.num_frames > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")
        return step(meter, batch)

    with patch.object(measure.Meter, "step", short):
        found = measured(tmp_path / "found.json", "--frames", "none", "--mixture", "sft_realtime", "--mixture-samples", "4")
    theirs, ours = found["cases"]
    assert theirs["too_large"] == ours["too_large"] == [0, 2]
    assert theirs["samples"] == ours["samples"] and len(ours["samples"]) == 2 and ours["frames"] == theirs["frames"] == 1
    words = next(table for table in found["tables"] if table["title"] == "not measured")["rows"]
    assert any("2 samples" in why for _, why in words)


def test_a_stage_has_its_share_of_the_time_and_both_sides_the_samples_that_were_reached(tmp_path: Path) -> None:
    words = ["--frames", "none", "--mixture", "sft_realtime", "--mixture-samples", "4", "--limit-seconds", "600"]
    with patch.object(Comparison, "_share", lambda *_: 0.0):
        found = measured(tmp_path / "found.json", *words)
    theirs, ours = found["cases"]
    assert theirs["not_reached"] == [1, 2, 3] and theirs["drawn"] == 4 and theirs["packs"] == 1 == ours["sample_count"]
    assert theirs["samples"] == ours["samples"] and theirs["flops"] == ours["flops"]
    words_ = next(table for table in found["tables"] if table["title"] == "not measured")["rows"]
    assert ["reference fp32, mixture of sft_realtime", "3 samples found no time; both sides leave them out"] in words_


def test_stages_weigh_alike_however_many_samples_they_have() -> None:
    def case(side: str, stage: str, count: int, seconds: float) -> dict[str, Any]:
        head = {"kind": "mixture", "side": side, "optimizer": "none", "precision": "bf16", "stage": stage}
        return {**head, "sample_count": count, "seconds": seconds, "all_seconds": [seconds / count] * count}

    cases = [case("reference", "pt1", 8, 8.0), case("ours", "pt1", 8, 2.0)]
    cases += [case("reference", "pt2", 2, 6.0), case("ours", "pt2", 2, 6.0)]
    content = {"options": {"mixture": ["pt1", "pt2"]}, "cases": cases}
    assert mixture_ratio(content, "bf16") == pytest.approx((1.0 + 3.0) / (0.25 + 3.0))


def test_our_side_tries_once_more_with_less_of_the_frames_state(tmp_path: Path) -> None:
    step = measure.Meter.step

    def short(meter: measure.Meter, batch: Any) -> float:
        if meter._subject.config.vision.keep_activations_gib > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")
        return step(meter, batch)

    def fitted(self: Comparison, model: Model, case: Any, subject: Any, part: float = 1.0) -> tuple[str, ...]:
        return ("vision.again_chunk_frames=8", f"vision.keep_activations_gib={4 * part}", *model.overrides)

    with patch.object(measure.Meter, "step", short), patch.object(Comparison, "fitted", fitted):
        found = measured(tmp_path / "found.json", "--frames", "3", "--rows", "48", "--mixture", "none", "--sides", "ours")
    (case,) = found["cases"]
    assert "failed" not in case and case["seconds"] > 0 and "vision.keep_activations_gib=2.0" in case["overrides"]


def test_a_case_without_memory_is_told_and_the_next_goes_on(tmp_path: Path) -> None:
    step = measure.Meter.step

    def short(meter: measure.Meter, batch: Any) -> float:
        if batch.num_frames == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")
        return step(meter, batch)

    with patch.object(measure.Meter, "step", short):
        found = measured(
            tmp_path / "found.json", "--frames", "6,3", "--rows", "64,48", "--mixture", "none", "--sides", "reference"
        )
    failed, good = found["cases"]
    assert failed["failed"].startswith("out of memory") and "seconds" not in failed and good["seconds"] > 0


def test_nothing_begins_when_time_is_up(tmp_path: Path) -> None:
    words = ["--frames", "3", "--rows", "48", "--mixture", "none", "--limit-seconds", "0"]
    found = measured(tmp_path / "found.json", *words)
    assert not found["cases"] and len(found["left_out"]) == 2
    assert all(entry["reason"] == "the time of --limit-seconds was up" for entry in found["left_out"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frames", "7"], "--frames has 7, of which nothing is published"),
        (["--frames", "3,6", "--rows", "48"], "--rows has 1 numbers for 2 of --frames"),
        (["--frames", "6", "--rows", "7"], "--rows has 7, which does not hold 6 frames"),
        (["--frames", "6", "--rows", "72", "--precision", "fp8"], "--rows has 72, and fp8 takes multiples of 16; use 80"),
        (["--mixture", "pt9"], "--mixture has 'pt9'"),
        (["--sides", "mine"], "--sides has 'mine'"),
        (["--frames", "none", "--deepspeed"], "--deepspeed measures one of the samples, but --frames is none"),
        (["--limit-seconds", "soon"], "--limit-seconds is 'soon'"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *words]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_zero_is_a_row_or_a_reason(tmp_path: Path) -> None:
    words = ["--frames", "3", "--rows", "48", "--mixture", "none", "--sides", "reference", "--deepspeed"]
    found = measured(tmp_path / "found.json", *words)
    zero = next(case for case in found["cases"] if case["optimizer"] == "zero2")
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        assert "the package cannot be imported" in zero["failed"]
    else:
        assert zero["seconds"] > 0 and "engine=deepspeed" in zero["overrides"]
        assert any(table["title"] == "steps with updates" for table in found["tables"])
