"""`moss bench train` whole, at a size that the CPU steps in a moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.config import VideoMllamaConfig
from moss_train.bench.packs import stage_pack
from moss_train.bench.train.clips import make_data
from moss_train.bench.train.rates import PHASES
from moss_train.cli.main import EXIT_BAD_INPUT, main
from moss_train.config.compose import compose
from moss_train.feed.work import batch_work
from moss_train.planning.flops import hardware_flops, model_flops

SMALL = ["bench", "train", "--model", "tiny", "--precision", "fp32", "--steps", "2", "--warmup", "1"]


def measured(out: Path, *words: str) -> dict[str, Any]:
    assert main([*SMALL, "--out", str(out), *words]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def check_case(case: dict[str, Any], chip: dict[str, Any]) -> None:
    """What holds for the numbers of every case."""
    seconds, rate = case["seconds"], case["tflops"]
    assert sum(seconds[name] for name in PHASES) == pytest.approx(seconds["step"])
    assert seconds["decode"] > 0 and case["spread"]["least"] <= case["spread"]["median"] <= case["spread"]["most"]
    total = case["flops"]["model"]["total"]
    assert total == pytest.approx(sum(value for name, value in case["flops"]["model"].items() if name != "total"))
    assert rate["model"] == pytest.approx(total / seconds["step"] / 1e12)
    assert rate["model"] == pytest.approx(sum(rate["by_part"].values()))
    assert case["mfu"]["product"] == pytest.approx(rate["model"] * 1e12 / chip["product_flops"])
    assert case["flops"]["hardware"]["total"] >= total
    assert sum(frames for pack in case["samples"] for _, frames in pack) == case["work"]["frames"]
    assert case["fused_tower"] is False  # fp32 on a CPU
    assert case["memory"]["peak"] > 1 << 20 and len(case["all_seconds"]) == case["steps"]


def test_every_case_is_measured_and_counted_as_a_plan_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--stages",
        "pt1,sft_realtime",
        "--frames",
        "0,6",
        "--rows",
        "96",
        "--recompute",
        "full",
        "vision.keep_mode=attention",
    ]
    found = measured(tmp_path / "made" / "found.json", *words, "--optimizer", "adamw", "--keep-gib", "0.0001")
    assert [(c["stage"], c["frame_count"]) for c in found["cases"]] == [
        ("pt1", 0), ("pt1", 6), ("sft_realtime", 0), ("sft_realtime", 6),
    ]  # fmt: skip
    for case in found["cases"]:
        check_case(case, found["chip"])
        run = compose(case["overrides"])
        assert run.stage.sequence_length == 96 and run.parallel.recompute == "full"
        config = VideoMllamaConfig.from_dict(run.model)
        work = batch_work(stage_pack(config, case["stage"], 96, case["frame_count"], pixels=False))
        assert case["flops"]["model"]["total"] == model_flops(config, work, run.stage, run.lora).total
        frames = case["frames"]
        assert case["flops"]["hardware"]["total"] == hardware_flops(
            config, work, run.stage, run.lora, recompute="full", frames_again=frames["again"], frames_kept=frames["kept"],
            keep_mode=frames["keep_mode"],
        ).total  # fmt: skip
        assert case["updates"] and case["seconds"]["optimizer"] > 0
        assert case["per_second"]["tokens"] == pytest.approx(96 / case["seconds"]["step"])
    last = found["cases"][-1]["frames"]
    assert last["kept"] + last["again"] == last["encoded"] == 6 and 0 < last["kept"] < 6 and last["keep_mode"] == "attention"
    assert found["hardware"]["memory"] > 1 << 30 and found["versions"]["torch"] and found["date"] and "command" in found
    printed = capsys.readouterr()
    assert "sft_realtime fp32, 96 rows, 6 frames" in printed.out and "warm-up 1 of 1" in printed.err


def test_a_profile_says_where_the_time_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    case = measured(out, "--frames", "6", "--rows", "96", "--profile")["cases"][0]
    found = case["profile"]
    assert {"product", "attention", "norm", "element-wise", "copy", "loss"} <= set(found["kinds"])
    assert found["kinds"]["product"]["tflops"] > 0 and found["kinds"]["attention"]["tflops"] > 0
    assert {"encode", "decode", "return"} <= set(found["phases"])
    assert found["busy_seconds"] == pytest.approx(sum(sum(phase.values()) for phase in found["phases"].values()))
    assert found["top"][0]["seconds"] >= found["top"][-1]["seconds"] > 0
    capsys.readouterr()
    assert main(["bench", "train", "--table", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "### rates" in printed and "| pt2 fp32, 96 rows, 6 frames |" in printed and "| `aten::mm` | product |" in printed


def test_several_packs_of_a_step_and_shards_left_alone(tmp_path: Path) -> None:
    case = measured(tmp_path / "found.json", "--frames", "4", "--rows", "64", "--micro-batches", "2")["cases"][0]
    assert case["name"] == "pt2 fp32, 2 x 64 rows, 4 frames" and len(case["samples"]) == 2
    assert case["work"]["rows"] == 128 and case["work"]["frames"] == 8 and compose(case["overrides"]).train.global_batch_size == 2


def test_no_case_begins_when_the_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(tmp_path / "found.json", "--frames", "4", "--rows", "64,96", "--limit-seconds", "0")
    assert found["cases"] == [] and [entry["reason"] for entry in found["left_out"]] == ["the time of --limit-seconds was up"] * 2
    assert "left out, the time of --limit-seconds was up" in capsys.readouterr().out


def test_what_a_stage_does_not_pack_is_left_out(tmp_path: Path) -> None:
    words = ["--stages", "pt1", "--frames", "4,65", "--rows", "64,8192"]
    found = measured(tmp_path / "found.json", *words)
    assert [case["name"] for case in found["cases"]] == ["pt1 fp32, 64 rows, 4 frames"]
    assert {entry["reason"] for entry in found["left_out"]} == {
        "packs of pt1 have at most 64 frames", "packs of pt1 have at most 4096 rows",
    }  # fmt: skip


def test_real_shards_through_the_real_loader(tmp_path: Path) -> None:
    make_data(tmp_path / "data", "tiny", lambda _: None, clips=2, seconds=3.0)
    words = ["--data", str(tmp_path / "data"), "data.global_data_workers=1", "data.worker_processes=0"]
    found = measured(tmp_path / "found.json", "--frames", "8", "--rows", "96", *words)
    case = found["cases"][0]
    check_case(case, found["chip"])
    assert case["data"] == "data" and 0 < case["data_wait_share"] < 1
    assert 0 < case["seconds"]["data_wait"] and case["seconds_are"].startswith("means")
    assert 3 <= case["work"]["frames"] <= 8  # a sample has three: whole clips, decoded
    assert main([*SMALL, "--make-data", str(tmp_path / "data")]) == EXIT_BAD_INPUT


SHORT_OF_MEMORY = """
import resource, sys
from moss_train import platform
platform.install()
import torch
torch.set_num_threads(1)
from moss_train.cli.main import main
import megatron.core.distributed, moss_train.bench.train.run, torch._dynamo, torch.distributed
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + (1400 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
sys.exit(main(sys.argv[1:]))
"""


def test_a_case_that_memory_does_not_hold_is_told_and_the_next_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = [*SMALL, "--frames", "0", "--rows", "64,131072,96", "--out", str(out), "stage.sequence_length=200000"]
    # Freed blocks go back to the system, and threads share what is left.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, *words], capture_output=True, text=True, check=False, env=environment, timeout=120
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    first, second, third = json.loads(out.read_text())["cases"]
    assert "failed" not in first and "failed" not in third and third["tflops"]["model"] > 0
    assert second["failed"].startswith("out of memory: ") and "seconds" not in second
    assert "131,072 rows, 0 frames: out of memory" in ran.stdout


def test_a_case_that_is_refused_does_not_end_the_others(tmp_path: Path) -> None:
    found = measured(tmp_path / "found.json", "--precision", "fp8,fp32", "--frames", "4", "--rows", "64")
    refused, done = found["cases"]
    assert "fp8" in refused["failed"] and "traceback" not in refused and "failed" not in done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "pt3"], "--stages has 'pt3'; use pt1, pt2, sft_offline, sft_realtime"),
        (["--stages", ","], "--stages is empty"),
        (["--frames", "8,many"], "--frames has 'many'; it takes whole numbers of at least 0"),
        (["--rows", "4"], "--rows has 4; it takes numbers of at least 8"),
        (["--precision", "fp4"], "--precision has 'fp4'; use bf16, fp8, fp32"),
        (["--precision", "fp8", "--rows", "100"], "precision.fp8 takes micro-batches of a multiple of"),
        (["--model", "12b"], "--model has '12b'; use 11b"),
        (["--text-layers", "1"], "--text-layers is 1; this model takes 2"),
        (["--text-layers", "0"], "--text-layers has '0'; it takes numbers of at least 1"),
        (["--tower-layers", "90"], "--tower-layers is 90; this model takes at most 6"),
        (["--optimizer", "lion"], "--optimizer has 'lion'; use none, adamw, compact"),
        (["--recompute", "some"], "--recompute has 'some'; use none, full"),
        (["--keep-mode", "half"], "vision.keep_mode is 'half'"),
        (["--keep-gib", "much"], "--keep-gib is 'much'; it takes a number"),
        (["--steps", "0"], "--steps has '0'"),
        (["--data", "/nowhere"], "--data is '/nowhere', no folder"),
        (["--data", "."], "--frames has 0 with --data"),
        (["--data", ".", "--frames", "8"], "--data . has no folder of shards that pt2 mixes (image, video)"),
        (["vision.layerz=fused"], "vision.layerz"),
        (["--out", "."], "--out . is a folder"),
        (["--table", "nothing.json"], "nothing.json does not exist"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "train", "--help"])
    assert "moss bench train --frames 64 --profile" in capsys.readouterr().out
