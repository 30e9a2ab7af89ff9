"""`moss bench full` at the size of a tiny model on the CPU: the whole way from the command to its file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import InputError
from moss_train.bench.full.depth import FullOptions, case_of, choose_case, plan_of, saved_bytes
from moss_train.bench.full.held import differing, digest, fingerprint, held_bytes
from moss_train.bench.full.measure import measure
from moss_train.bench.full.proof import SAVE_RATE, Proof, check_room
from moss_train.bench.full.tables import tables
from moss_train.bench.packs import stage_pack
from moss_train.bench.saving import HostPeak, memory_left, room
from moss_train.bench.subject import Subject, subject
from moss_train.cli.main import EXIT_BAD_INPUT, main
from moss_train.config.compose import compose
from moss_train.planning.memory import FREE

SIZES = {"--model": "tiny", "--rows": "96", "--frames": "6", "--steps": "1", "--warmup": "1", "--device": "cpu"}
TINY = ["bench", "full", *(word for pair in SIZES.items() for word in pair)]
OPTIONS = FullOptions(model="tiny", rows=96, frames=6, steps=1, warmup=1)


def _ended(steps: int = 1) -> Iterator[tuple[Subject, Any]]:
    case = case_of(OPTIONS, None)
    with subject(case.config, torch.device("cpu")) as built:
        for step in range(steps):
            built.train([stage_pack(built.model_config, case.stage, 96, 6, step)])
        yield built, case


@pytest.fixture
def trained() -> Iterator[tuple[Subject, Any]]:
    """A tiny subject behind its first update."""
    yield from _ended()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the CPU")
def test_a_run_is_measured_saved_and_continued_in_this_process_and_in_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "made" / "full.json", tmp_path / "saved"
    assert main([*TINY, "--save", str(folder), "--keep", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    proof = found["proof"]
    assert proof["same_state"] and proof["same_steps"] and proof["moved_between"] and proof["changed_by_saving"] == []
    assert proof["continued"] == proof["uninterrupted"] and len(proof["continued"]) == 2 and "again" not in proof
    assert set(proof["kinds"]) == {"weight", "exp_avg", "exp_avg_sq", "param_remainder"}
    assert proof["save"]["bytes"] == pytest.approx(8 * found["cases"][0]["parameters"], rel=0.1)
    assert found["cases"][0]["seconds"]["step"] > 0 and found["cases"][0]["overrides"] and found["plan"]["total"] > 0
    assert found["model"]["whole"] and found["summary"] == {}
    printed = capsys.readouterr().out
    assert "bytes a parameter" in printed and "weights and states" in printed
    assert main([*TINY, "--resume", str(folder), "--out", str(out), "--limit-seconds", "900"]) == 0
    assert str(tmp_path) not in out.read_text()
    resumed = json.loads(out.read_text())["resumed"]
    assert resumed["same_state"] and resumed["same_steps"] and resumed["continued"] == proof["uninterrupted"]
    assert main([*TINY, "--rows", "128", "--resume", str(folder)]) == EXIT_BAD_INPUT
    assert "was saved by a run with other options" in capsys.readouterr().err
    assert main([*TINY, "--save", str(folder)]) == EXIT_BAD_INPUT
    assert "holds checkpoints" in capsys.readouterr().err


def test_what_there_is_no_time_for_is_left_out_and_told(trained: tuple[Subject, Any], tmp_path: Path) -> None:
    built, case = trained
    proof, kept = Proof(built, case, 0, lambda _: None), list[dict[str, Any]]()
    found = proof.save_and_continue(tmp_path, time.perf_counter() - 1.0, kept.append)
    assert "nothing was saved" in found["not_done"][0] and kept == [] and not (tmp_path / "checkpoints").exists()
    titles = [table.title for table in tables({"proof": found})]
    assert titles == ["not measured"]
    soon = time.perf_counter() + saved_bytes(case) / SAVE_RATE + 0.05  # over when the checkpoint is there
    found = proof.save_and_continue(tmp_path, soon, kept.append)
    assert "use --resume in another" in found["not_done"][0] and "same_state" not in found and len(kept) == 1
    assert [table.title for table in tables({"proof": found})][1:] == ["not measured"]
    assert proof.resume(tmp_path)["same_state"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the CPU")
def test_without_keep_nothing_is_left_of_the_checkpoint(tmp_path: Path) -> None:
    assert main([*TINY, "--save", str(tmp_path)]) == 0
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "latest").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "many"], "--layers has 'many'; it takes all, auto, or a number"),
        (["--layers", "1"], "--layers is 1; this model takes 2"),
        (["--layers", "auto", "--card-gib", "0.1"], "--layers auto: 2 layers of tiny, the fewest, need"),
        (["--card-gib", "none"], "--card-gib is 'none'"),
        (["--limit-seconds", "0"], "--limit-seconds is '0'"),
        (["--keep-gib", "-1"], "--keep-gib is '-1'"),
        (["--frames", "-3"], "--frames has '-3'"),
        (["--rows", "0"], "--rows has '0'"),
        (["--warmup", "x"], "--warmup has 'x'"),
        (["--precision", "fp4"], "--precision has 'fp4'"),
        (["--save", "a", "--resume", "b"], "--save and --resume are both given"),
        (["--resume", "nowhere"], "--resume nowhere holds no continuation.json"),
        (["--out", "."], "--out . is a folder"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    device = ["--device", "auto"] if torch.cuda.is_available() else []
    assert main([*TINY, *arguments, *device]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_auto_takes_the_greatest_depth_that_the_plan_says_fits() -> None:
    options = FullOptions(layers="auto")
    whole = choose_case(options, int(139.8 * 2**30))
    assert compose(list(whole.group)).model["text"]["num_hidden_layers"] == 40
    card = int(79.1 * 2**30)
    chosen = choose_case(options, card)
    depth = chosen.config.model["text"]["num_hidden_layers"]
    assert 10 < depth < 40
    assert plan_of(chosen, 0).fits(card) and not plan_of(case_of(options, depth + 1), 0).fits(card)
    assert plan_of(chosen, 0).worst.total <= (1 - FREE) * card


def test_the_whole_11b_is_80_gib_of_state_and_fits_into_130() -> None:
    case = case_of(FullOptions(), None)
    assert saved_bytes(case) / 2**30 == pytest.approx(79.5, abs=0.5)
    assert plan_of(case, 0).worst.total / 2**30 < 130


def test_what_is_held_is_ten_bytes_a_parameter_and_two_more_of_the_tower(trained: tuple[Subject, Any]) -> None:
    built, case = trained
    held = held_bytes(built)
    vision = sum(p.numel() for p in built.models.unit.parameters())
    assert set(held) == {"weights", "gradients", "exp_avg", "exp_avg_sq", "master_param"}
    assert sum(held.values()) == pytest.approx(10 * built.parameters + 2 * vision, rel=0.02)  # buffers are padded
    assert saved_bytes(case) == pytest.approx(8 * built.parameters, rel=0.01)


def test_a_fingerprint_notices_one_bit_and_values_that_change_places(trained: tuple[Subject, Any]) -> None:
    built, _ = trained
    before = fingerprint(built)
    assert before == fingerprint(built) and digest(before) == digest(fingerprint(built))
    name, weight = next((n, p) for n, p in built.models.unit.named_parameters() if p.numel() > 64)
    bits = weight.detach().view(-1).view(torch.int16)
    bits[3] ^= 1
    (changed,) = differing(before, fingerprint(built))
    assert name.removeprefix("encoder.") in changed
    bits[3] ^= 1
    assert differing(before, fingerprint(built)) == []
    first, second = int(bits[3]), int(bits[9])
    assert first != second
    bits[3], bits[9] = second, first
    assert len(differing(before, fingerprint(built))) == 1


def test_a_continuation_that_is_not_the_same_is_told(trained: tuple[Subject, Any], tmp_path: Path) -> None:
    built, case = trained
    proof = Proof(built, case, 0, lambda _: None)
    assert proof.save_and_continue(tmp_path)["same_state"]
    states = built.optimization.optimizer.chained_optimizers[0].optimizer.state
    next(iter(states.values()))["exp_avg"].view(-1)[:64] += 1  # what the next load puts right
    proof.load(tmp_path)
    content = json.loads((tmp_path / "continuation.json").read_text())
    assert digest(fingerprint(built)) == content["digest"]
    content["steps"][0]["loss"] = (1.0).hex()
    (tmp_path / "continuation.json").write_text(json.dumps(content))
    found = proof.resume(tmp_path)
    assert found["same_state"] and not found["same_steps"]


def test_a_folder_without_room_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    assert 0 < room(tmp_path)
    with pytest.raises(InputError, match=r"--save .* has room for .* GB and the checkpoint takes 1000000000\.0"):
        check_room(tmp_path, 10**18)
    built: list[str] = []
    options = FullOptions()
    with pytest.raises(InputError, match="has room for"):
        measure(options, _huge(options), torch.device("cpu"), 1, tmp_path, None, built.append)
    assert built == []


def _huge(options: FullOptions) -> Any:
    """A case that no disk takes: the widths of 11B a thousand times over."""
    return case_of(FullOptions(overrides=("model.text.vocab_size=100000000000",)), None)


def test_memory_in_folders_of_memory_counts_and_peaks_are_seen() -> None:
    shared = Path("/dev/shm")
    if shared.is_dir():
        assert room(shared) <= memory_left()
    with HostPeak() as host:
        block = torch.ones(64 << 20, dtype=torch.uint8)
        del block
    assert host.peak >= host.before and host.added >= 32 << 20


@pytest.mark.gpu
def test_compact_states_are_saved_and_continued_on_a_gpu(tmp_path: Path) -> None:
    options = FullOptions(model="small", rows=256, frames=8, steps=2, warmup=1)
    case = case_of(options, None)
    found = measure(options, case, torch.device("cuda"), 1 << 40, tmp_path, None, lambda _: None)
    assert found["proof"]["same_state"] and found["proof"]["moved_between"]
    assert found["proof"]["same_steps"] or not found["proof"]["repeatable"]
    assert found["proof"]["save"]["device_bytes_added"] < 64 << 20
    assert found["proof"]["save"]["host_bytes_added"] < 1 << 30


def test_a_depth_that_there_is_not_is_refused_by_the_name_of_this_command() -> None:
    with pytest.raises(InputError, match=r"^--layers is 99; this model takes"):
        case_of(FullOptions(layers=99), 99)
