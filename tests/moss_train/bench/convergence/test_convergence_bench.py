"""`moss bench convergence`: runs in processes of their own, and what their curves say."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.convergence.compare import WINDOWS, compare, distance, held_against, window_means
from moss_train.bench.convergence.configs import PAIRS, WAYS, ways_of
from moss_train.bench.convergence.runs import Run, all_runs, run_all
from moss_train.bench.convergence.worker import packs
from moss_train.cli.main import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main
from moss_train.config.compose import compose

TINY = ["model.text.num_hidden_layers=2", "model.text.cross_attention_layers=[1]", "model.text.hidden_size=48"]
"""Of the small model, so that a step takes a moment."""
CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the CPU")


def made(pair: str, ours: list[list[float]], theirs: list[list[float]]) -> list[Run]:
    """Runs with these curves."""
    found = []
    for name, curves in zip(PAIRS[pair], (ours, theirs), strict=True):
        found += [Run(WAYS[name], seed, len(curve), losses=curve) for seed, curve in enumerate(curves, start=1)]
    return found


@CPU
def test_curves_of_both_ways_are_run_compared_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, plot = tmp_path / "made" / "found.json", tmp_path / "curves.svg"
    command = ["bench", "convergence", "--pairs", "states", "--seeds", "2", "--steps", "6", "--parallel", "2", "--device", "cpu"]
    assert main([*command, "--out", str(out), "--plot", str(plot), *TINY]) == 0
    found = json.loads(out.read_text())
    (pair,) = found["pairs"]
    assert (pair["of"], pair["against"], pair["steps"], pair["seeds"]) == ("compact", "fp32_state", 6, [2, 2])
    assert pair["left_out"] == [] and len(pair["windows"]) == 6 and pair["within_noise"] is not None
    runs = {(run["way"], run["seed"]): run for run in found["runs"]}
    assert len(runs) == 4 and all(len(run["losses"]) == len(run["norms"]) == 6 and not run["trouble"] for run in runs.values())
    for seed in (1, 2):  # the same weights and data: first steps agree but for the rounding of bf16 gradients
        compact, whole = runs[("compact", seed)]["losses"], runs[("fp32_state", seed)]["losses"]
        assert compact[0] == whole[0] and compact[1:] != whole[1:]
        assert compact == pytest.approx(whole, rel=0.02)
    assert runs[("compact", 1)]["losses"][0] != runs[("compact", 2)]["losses"][0]
    assert (tmp_path / "curves-states.svg").read_text().startswith("<svg")
    assert "compact against fp32_state" in capsys.readouterr().out


@CPU
def test_the_time_that_is_up_leaves_the_steps_that_were_done_and_a_refusal_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    long = dataclasses.replace(WAYS["compact"], steps=100_000)
    runs = all_runs([long], 2, None)
    run_all(runs, tmp_path, parallel=1, device="cpu", limit=5.0, more=TINY, say=told.append)
    first, second = runs
    assert 0 < len(first.losses) < 100_000 and first.trouble is None and all(map(math.isfinite, first.losses))
    assert second.losses == [] and second.trouble == "the time was up before it began"
    refused = all_runs([WAYS["fp8"]], 1, 3)
    run_all(refused, tmp_path, parallel=1, device="cpu", limit=None, more=TINY, say=told.append)
    assert refused[0].losses == [] and "precision.fp8" in str(refused[0].trouble)
    failed = compare("fp8", refused)["failed"]
    assert failed.startswith("fp8: ") and "precision.fp8" in failed
    assert len(told) == 2


@CPU
def test_a_process_that_dies_says_its_last_words(tmp_path: Path) -> None:
    broken = dataclasses.replace(WAYS["compact"], samples=((8, 9),))  # more frames than rows
    runs = all_runs([broken], 1, 2)
    ended: list[int] = []
    run_all(
        runs, tmp_path, parallel=1, device="cpu", limit=None, more=TINY, say=lambda _: None, logs=tmp_path / "kept",
        keep=lambda: ended.append(len(runs[0].losses)), keep_seconds=math.inf,
    )  # fmt: skip
    trouble, log = str(runs[0].trouble), (tmp_path / "kept-compact_1.log").read_text()
    assert runs[0].losses == [] and trouble.startswith("its process ended with 1:") and ended == [0]
    assert "Traceback" in log and log.strip().endswith(trouble[-80:])


COMMAND = """
import signal, sys
from moss_train.cli.main import main
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
status = main(sys.argv[1:])
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
sys.exit(status)
"""


@CPU
def test_a_command_that_is_told_to_end_leaves_the_steps_so_far_and_can_be_told_again_behind_it(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["--pairs", "states", "--seeds", "2", "--steps", "100000", "--parallel", "2", "--device", "cpu", "--out", str(out)]
    command = [sys.executable, "-c", COMMAND, "bench", "convergence", *words, "--keep-seconds", "1", *TINY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        partial = _awaited(out)
        process.send_signal(signal.SIGINT)  # Ctrl-C, which would raise at once where it is not noted
        os.killpg(process.pid, signal.SIGTERM)  # a second word to the group, as `timeout` gives it
        said, _ = process.communicate(timeout=30)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # no worker is left
    finally:
        process.kill()
    assert process.returncode == EXIT_INTERRUPTED, said
    found = json.loads(out.read_text())
    for before, run in zip(partial["runs"][:2], found["runs"][:2], strict=True):
        assert 0 < before["steps"] <= run["steps"] < 100_000 and run["losses"][: before["steps"]] == before["losses"]
        assert len(run["norms"]) == run["steps"]
        assert before["trouble"] == f"still running when this was written, after {before['steps']:,} of 100,000 steps"
        assert run["trouble"] == f"told to end after {run['steps']:,} of 100,000 steps" and run["trouble"] in said
    assert [run["trouble"] for run in found["runs"][2:]] == ["told to end before it began"] * 2
    assert found["pairs"][0]["steps"] == min(run["steps"] for run in found["runs"][:2])
    assert "compact against fp32_state" in said and said.rstrip().endswith("interrupted")


def _awaited(out: Path) -> dict[str, Any]:
    """The results, once they hold steps of two runs that go on."""
    end = time.monotonic() + 150
    while time.monotonic() < end:
        if out.exists():
            found: dict[str, Any] = json.loads(out.read_text())
            if sum(run["steps"] > 0 for run in found["runs"]) == 2:
                return found
        time.sleep(0.2)
    raise AssertionError("nothing was written while runs went on")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "fp4"], "--pairs has 'fp4'; use some of states, fp8, fp8_wide"),
        (["--seeds", "0"], "--seeds has '0'"),
        (["--steps", "none"], "--steps has 'none'"),
        (["--parallel", "0"], "--parallel has '0'"),
        (["--limit-seconds", "x"], "--limit-seconds has 'x'"),
        (["--keep-seconds", "0"], "--keep-seconds has '0'"),
        (["--out", "."], "--out . is a folder"),
        (["model.text.width=3"], "model.text.width"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "convergence", *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_both_sides_of_a_pair_differ_in_what_is_asked_about_alone() -> None:
    for pair, (of, against) in PAIRS.items():
        ours, theirs = (compose(list(WAYS[name].overrides)) for name in (of, against))
        assert WAYS[of].samples == WAYS[against].samples and WAYS[of].rate == WAYS[against].rate
        assert ours.model == theirs.model and ours.stage == theirs.stage and ours.optimizer.beta2 == theirs.optimizer.beta2
        if pair == "states":
            assert (ours.optimizer.moments, ours.optimizer.master) == ("bf16", "remainders")
            assert (theirs.optimizer.moments, theirs.optimizer.master) == ("fp32", "fp32")
            assert not ours.precision.grad_reduce_fp32 and theirs.precision.grad_reduce_fp32
        else:
            assert ours.optimizer == theirs.optimizer and ours.precision.fp8 != "none" == theirs.precision.fp8
    with pytest.raises(InputError, match="--pairs has 'other'"):
        ways_of(["other"])


def test_packs_are_fresh_in_every_step_and_the_same_for_a_seed() -> None:
    config = VideoMllamaConfig.from_dict(compose(list(WAYS["compact"].overrides)).model)
    samples = [(32, 2), (48, 3)]
    first, again = (list(packs(config, 5, 0, 4, samples, 2)) for _ in range(2))
    other = list(packs(config, 6, 0, 4, samples, 2))
    assert len(first) == 4 and all(len(step) == 2 for step in first)
    for one, two in zip(first, again, strict=True):
        assert all(
            torch.equal(a.input_ids, b.input_ids) and torch.equal(a.frames, b.frames) for a, b in zip(one, two, strict=True)
        )
    different = {tuple(pack.frames.flatten()[:500].tolist()) for step in (*first, *other) for pack in step}
    assert len(different) == 16
    assert first[0][0].frames.dtype == torch.uint8 and first[0][0].frames.shape[0] == 5


@given(
    noise=st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6, unique=True),
    shift=st.floats(-3.0, 3.0),
)  # fmt: skip
def test_a_difference_is_counted_in_standard_errors(noise: list[float], shift: float) -> None:
    ours, theirs = [5 + shift + n for n in noise[:3]], [5 + n for n in noise[3:]]
    found = held_against(ours, theirs)
    error = math.sqrt(stdev(ours) ** 2 / 3 + stdev(theirs) ** 2 / 3)
    assert found["difference"] == pytest.approx(fmean(ours) - fmean(theirs))
    assert found["standard_errors"] == pytest.approx((fmean(ours) - fmean(theirs)) / error, rel=1e-6)
    assert found["bound"] is not None and 2.7 < found["bound"] < 4.4
    assert held_against(ours[:1], theirs)["standard_errors"] is None


def test_noise_is_told_from_a_difference_and_short_runs_are_left_out() -> None:
    def curve(level: float, steps: int = 100) -> list[float]:
        return [level + 2.0 / (1 + step) for step in range(steps)]

    noisy = compare("states", made("states", [curve(1.00), curve(1.02), curve(0.98)], [curve(1.01), curve(0.99), curve(1.03)]))
    assert noisy["within_noise"] is True and noisy["windows_within_noise"] == WINDOWS
    assert noisy["within_spread"] is True and noisy["agrees_to"] == 100 == noisy["asked"]
    assert noisy["last"]["spread"] == pytest.approx(0.04) and noisy["paired"] == pytest.approx([-0.01, 0.03, -0.05])
    assert noisy["distance"] == pytest.approx(0.01, abs=1e-6) and noisy["distance_of_seeds"][0] == pytest.approx(0.02, abs=1e-6)
    worse = compare("states", made("states", [curve(1.20), curve(1.22), curve(1.18)], [curve(1.01), curve(0.99), curve(1.03)]))
    assert worse["within_noise"] is False and worse["last"]["difference"] == pytest.approx(0.19)
    assert worse["within_spread"] is False and worse["agrees_to"] == 0
    apart = [curve(1.0)[:50] + curve(2.0)[50:], curve(1.1)[:50] + curve(2.1)[50:]]
    assert compare("states", made("states", apart, [curve(1.05), curve(1.15)]))["agrees_to"] == 50
    short = compare("states", made("states", [curve(1.0), curve(1.1), curve(1.0, 20)], [curve(1.0), curve(1.1, 60)]))
    assert (short["steps"], short["seeds"], short["left_out"]) == (60, [2, 2], ["compact, seed 3"])
    assert "no run came as far" in compare("states", made("states", [curve(1.0)], [curve(1.0, 10)]))["failed"]
    assert compare("states", made("states", [[1.0, math.nan]], [[1.0, 1.0]]))["failed"] == "a loss is no finite number"
    one = compare("states", made("states", [curve(1.0)], [curve(1.1)]))
    assert one["within_noise"] is None and one["windows_within_noise"] == 0
    assert one["within_spread"] is None and one["agrees_to"] == 0 and one["paired"] == pytest.approx([-0.1])


def test_windows_and_distances() -> None:
    assert window_means([[float(i) for i in range(20)]], 20) == [[0.5 + 2 * i for i in range(10)]]
    assert window_means([[4.0, 2.0, 1.0]], 3) == [[4.0, 2.0, 1.0]]
    assert distance([1.0, 2.0], [2.0, 0.0]) == 1.5
