"""`moss bench fleet` with a tiny model on two CPU ranks: real runs under our torchrun, a real kill, a real resharded resume."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.data.setups import tokenizer_of
from moss_train.bench.fleet.findings import checkpoint_cost, same_steps
from moss_train.bench.fleet.job import Job, Row, RunEnded, TimeUp
from moss_train.bench.fleet.machine import Machine, this_machine, visible
from moss_train.bench.fleet.processes import MARK, end_all, marked, remove_unused
from moss_train.bench.fleet.runs import GIB, Options, choose, run_config, saved_cut
from moss_train.bench.fleet.shards import A_PACK, clips_of, make_shards
from moss_train.bench.fleet.tables import tables
from moss_train.bench.saving import checkpoint_bytes
from moss_train.bench.subject import Cut
from moss_train.cli.main import EXIT_BAD_INPUT, main
from moss_train.config.compose import compose
from tests.moss_train.runs import run_config as small_run
from tests.moss_train.runs import write_data

SIZES = {
    "--model": "tiny", "--device": "cpu", "--gpus": "2", "--rows": "128", "--frames": "8", "--readers": "1", "--steps": "2",
    "--warmup": "1", "--save-step": "3", "--repeated": "2", "--limit-seconds": "240",
}  # fmt: skip
TINY = ["bench", "fleet", *(word for pair in SIZES.items() for word in pair)]
H200, H100 = ("NVIDIA H200", 139.8), ("NVIDIA H100 80GB HBM3", 79.1)


def _machine(card: tuple[str, float], ranks: int) -> Machine:
    return Machine("cuda", ranks, card[0], int(card[1] * GIB))


@pytest.mark.ranks
@pytest.mark.timeout(280)
def test_rates_a_checkpoint_a_kill_and_another_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, work = tmp_path / "made" / "fleet.json", tmp_path / "work"
    assert main([*TINY, "--work-dir", str(work), "--out", str(out), "--reshard", "half"]) == 0
    found = json.loads(out.read_text())
    assert found["rates"]["seconds"] > 0 and found["rates"]["frames_per_second"] > 0 and found["rates"]["steps"] == 2
    assert found["rates"]["padding"] < 0.3 and found["rates"]["run"]["layout"] == "DP2"
    part = found["checkpoint"]
    assert part["step"] == 3 and part["bytes"] > 8 * part["run"]["parameters"] and part["deterministic"]
    assert 0 < part["stall_seconds"] <= part["durable_seconds"]
    kill = found["kill"]
    assert kill["bit_equal"] and len(kill["steps"]) >= 1 and kill["first_step"] > 3
    assert kill["ended_seconds"] < kill["trains_again_seconds"] < kill["first_step_seconds"]
    reshard = found["reshard"]
    assert reshard["run"]["ranks"] == 1 and [row["step"] for row in reshard["steps"]] == [4, 5]
    assert reshard["within_tolerance"] and reshard["loss_difference"] < 1e-3
    assert found["left_over_processes"] == 0 and list(work.iterdir()) == [] and not kill["another_run_beside"]
    assert str(tmp_path) not in out.read_text()
    capsys.readouterr()
    assert main(["bench", "fleet", "--table", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "training waited, s" in printed and "the same steps in another layout" in printed


@pytest.mark.ranks
@pytest.mark.timeout(280)
def test_a_kill_and_another_layout_at_once(tmp_path: Path) -> None:
    out, work = tmp_path / "fleet.json", tmp_path / "work"
    words = ["--parts", "kill,reshard", "--reshard", "tensor", "--at-once", "--work-dir", str(work), "--out", str(out)]
    assert main([*TINY, *words]) == 0
    found = json.loads(out.read_text())
    assert found["kill"]["another_run_beside"] and found["kill"]["bit_equal"] and "rates" not in found
    assert found["reshard"]["run"]["layout"] == "DP1 TP2" and found["reshard"]["within_tolerance"]
    assert found["left_over_processes"] == 0 and list(work.iterdir()) == []


@pytest.mark.ranks
@pytest.mark.timeout(120)
def test_what_there_is_no_time_for_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    out, work = tmp_path / "fleet.json", tmp_path / "work"
    assert main([*TINY, "--parts", "checkpoint,kill", "--work-dir", str(work), "--out", str(out), "--limit-seconds", "3"]) == 1
    found = json.loads(out.read_text())
    told = found["checkpoint"]["not_done"]  # the second where a slow machine had not begun the run by then
    assert "no time was left for the checkpoint of step 3" in told or "s were left of --limit-seconds" in told
    assert "kill" not in found
    assert list(work.iterdir()) == [] and [table.title for table in tables(found)][-1] == "not measured"


@pytest.mark.ranks
@pytest.mark.timeout(120)
def test_a_run_that_ends_by_itself_is_told_with_what_it_said(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    config = small_run(tmp_path / "data", tmp_path / "runs" / "bad", train__global_batch_size=3)
    with Job(config, 2) as job, pytest.raises(RunEnded, match=r"train.global_batch_size is 3, not a multiple of the 2"):
        job.wait_for(lambda j: bool(j.steps()), time.monotonic() + 100, "a step")
    assert marked(job.mark) == {}
    with Job(config, 2) as job, pytest.raises(TimeUp, match="no time was left for a step"):
        job.wait_for(lambda j: bool(j.steps()), time.monotonic() + 0.5, "a step")
    assert marked(job.mark) == {}


@pytest.mark.parametrize(("card", "ranks", "least"), [(H200, 2, 1), (H200, 8, 1), (H100, 2, 2), (H100, 8, 2)])
def test_the_layout_follows_the_memory_of_a_gpu(card: tuple[str, float], ranks: int, least: int) -> None:
    """least: tensor-parallel ranks with which the whole model fits; more may be faster, going by measured rates."""
    machine, options = _machine(card, ranks), Options()
    config = run_config(options, Cut(), Path("shards"), machine)
    chosen = choose(config, ranks, machine, options)
    tensor = chosen.config.parallel.tensor
    assert tensor >= least and chosen.layout.startswith(f"DP{ranks // tensor}")
    assert chosen.bytes < machine.card and chosen.config.train.global_batch_size == ranks
    assert "by the plan" in chosen.why and chosen.seconds
    if card == H200:
        other = choose(config, ranks, machine, options, other_than=chosen.config.parallel)
        assert other.config.parallel.tensor != tensor and other.seconds and other.seconds >= chosen.seconds


def test_what_does_not_fit_is_refused_with_the_least_that_is_needed() -> None:
    machine, options = _machine(H100, 1), Options()
    with pytest.raises(InputError, match=r"--gpus 1: no layout fits 79.1 GiB \(the least a rank needs is 1\d\d"):
        choose(run_config(options, Cut(), Path("shards"), machine), 1, machine, options)


def test_a_layout_that_the_overrides_name_is_taken() -> None:
    machine, options = _machine(H200, 2), Options(overrides=("parallel=tp2",))
    config = run_config(options, Cut(), Path("shards"), machine)
    assert choose(config, 2, machine, options).config.parallel.tensor == 2


@pytest.mark.parametrize("size", [18.0, 20.0, 40.0, None])
def test_the_run_that_is_saved_is_as_deep_as_its_checkpoint_may_be_large(size: float | None) -> None:
    machine, options = _machine(H200, 2), Options(checkpoint_gb=size)
    cut = saved_cut(options, Path("shards"), machine)
    if size is None:
        assert cut == Cut(None, None)
        return
    assert checkpoint_bytes(run_config(options, cut, Path("shards"), machine)) <= size * 1e9
    assert cut.text_layers is not None
    deeper = run_config(options, Cut(cut.text_layers + 1, cut.tower_layers), Path("shards"), machine)
    assert checkpoint_bytes(deeper) > size * 1e9


@pytest.mark.parametrize("seed", range(4))
def test_samples_fill_half_of_a_pack(seed: int, tmp_path: Path) -> None:
    from data_pipeline.shards.info import read_samples
    from data_pipeline.world.video import encode_mp4
    from tests.moss_train.runs import _picture

    draw = random.Random(seed)
    frames = draw.choice([2, 4, 6])
    rows = draw.randrange(96, 400)
    tokenizer = tokenizer_of(VideoMllamaConfig.from_dict(compose(["stage=pt2", "model=tiny"]).model))
    import numpy as np

    picture = _picture(np.random.default_rng(0), "red")
    clip = encode_mp4(np.stack([picture] * frames))
    make_shards(tmp_path / "one", [clip], tokenizer, rows=rows, frames=frames, samples=5, seed=seed)
    samples = list(read_samples(tmp_path / "one" / "video"))
    assert len(samples) == 5
    for _, sample in samples:
        text = len(tokenizer.encode(sample.messages[1].content))
        assert 0.7 * (rows // A_PACK - frames // A_PACK - 16) <= text <= rows // A_PACK - frames // A_PACK - 16
        assert sample.media[0].max_frames == frames // A_PACK
    assert clips_of(tmp_path / "one") == [clip] * 5


def _rows(seconds: dict[int, float], start: int = 1, loss: float = 1.0) -> dict[int, Row]:
    return {
        step: Row(start, {"step": step, "loss": loss, "grad_norm": 2.0, "seconds": value}, float(step))
        for step, value in seconds.items()
    }


def test_a_checkpoint_s_cost_is_read_from_events_and_steps() -> None:
    rows = _rows({1: 9.0, 2: 1.0, 3: 1.2, 4: 1.1, 5: 2.0, 6: 3.0, 7: 1.0, 8: 1.4})
    begun = {"event": "checkpoint begun", "step": 4, "stall_seconds": 0.5, "time": "2025-01-01T00:00:10.000+00:00"}
    published = {"event": "checkpoint published", "step": 4, "time": "2025-01-01T00:00:14.500+00:00"}
    found = checkpoint_cost(rows, begun, published, 6, warmup=1)
    assert found["durable_seconds"] == 5.0 and found["stall_seconds"] == 0.5
    assert (found["median_before"], found["median_meanwhile"], found["median_after"]) == (1.1, 2.5, 1.2)
    assert found["steps_meanwhile"] == 2 and found["most_meanwhile"] == 3.0


def test_steps_that_were_done_twice_are_compared_by_their_bits() -> None:
    one = _rows({3: 1.0, 4: 1.0})
    assert same_steps(one, _rows({4: 2.0, 5: 2.0}, 2))["bit_equal"]
    other = same_steps(one, _rows({4: 2.0}, 2, loss=1.01))
    assert not other["bit_equal"] and other["loss_difference"] == pytest.approx(0.01) and other["norm_difference"] == 0.0
    assert not same_steps(one, {})["bit_equal"] and same_steps(one, {})["first_loss_difference"] is None


@pytest.fixture
def family() -> Iterator[tuple[str, int]]:
    """A process with the mark, and its child in a session of its own."""
    mark = uuid.uuid4().hex
    code = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "start_new_session=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {MARK: mark})
    yield mark, process.pid
    process.kill()
    process.wait()
    end_all(mark)


def test_all_processes_of_a_run_are_ended_and_no_others(family: tuple[str, int]) -> None:
    mark, pid = family
    deadline = time.monotonic() + 20
    while len(marked(mark)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(marked(mark)) == 2 and pid in marked(mark) and os.getpid() not in marked(mark)
    assert end_all(mark) == [] and marked(mark) == {}


def test_files_that_are_in_use_are_left(tmp_path: Path) -> None:
    used, free = tmp_path / "torch_used", tmp_path / "torch_free"
    free.write_bytes(b"x")
    with used.open("wb"):
        assert remove_unused({used, free}) == ["torch_free"]
    assert used.exists() and not free.exists()


def test_half_of_the_gpus_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _machine(H200, 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible(machine, 2) == "0,1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert visible(machine, 2) == "4,5" and visible(Machine("cpu", 2, "cpu", GIB), 2) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "rates,all"], "--parts has 'all'; use some of rates, checkpoint, kill, reshard"),
        (["--gpus", "none"], "--gpus has 'none'"),
        (["--limit-seconds", "0"], "--limit-seconds is '0'; it takes a number above 0"),
        (["--checkpoint-gb", "-1"], "--checkpoint-gb is '-1'"),
        (["--model", "13b"], "--model has '13b'"),
        (["--rows", "20"], "packs of --rows 20 have no room for --frames 8"),
        (["--data", "."], "--data . has no shards with mp4 files"),
        (["--table", "nowhere.json"], "--table nowhere.json cannot be read"),
        (["--out", "."], "--out . is a folder"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words: list[Any] = [*TINY, "--work-dir", str(tmp_path / "work"), *arguments]
    assert main(words) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("work/*"))


@pytest.mark.ranks
@pytest.mark.timeout(120)
def test_a_checkpoint_for_which_there_is_no_room_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moss_train.bench.fleet.measure.room", lambda folder: 1_000_000)
    out = tmp_path / "fleet.json"
    assert main([*TINY, "--parts", "checkpoint", "--work-dir", str(tmp_path / "work"), "--out", str(out)]) == 1
    assert "do not fit 0.0 GB; give a smaller --checkpoint-gb" in json.loads(out.read_text())["checkpoint"]["not_done"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without GPUs")
def test_a_machine_without_gpus_says_so() -> None:
    with pytest.raises(InputError, match="--device is cuda, but this machine shows no GPU"):
        this_machine("cuda", None, None)
    assert this_machine("auto", None, None).ranks == 2 and this_machine("cpu", 3, GIB).card == GIB
