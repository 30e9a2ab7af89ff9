"""Rates fitted to results of a card whose rates are known, and the two commands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.planning.calibration.compare import compare
from moss_train.planning.calibration.fit import fit
from moss_train.planning.calibration.results import Results, read_results
from moss_train.planning.flops import PEAK
from moss_train.planning.rates import NAMES, Rates, Row, read_table, write_table
from tests.moss_train.planning.calibration.synthetic import CASES, results

H100 = read_table()["H100"]


def planted(**factors: float) -> Rates:
    """The H100's rates, some of them changed."""
    return dataclasses.replace(H100.rates, **{name: getattr(H100.rates, name) * factor for name, factor in factors.items()})


def read(tmp_path: Path, content: dict[str, Any]) -> Results:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    return read_results([path])


@pytest.mark.parametrize(
    "factors",
    [
        {"decoder": 1.26, "decoder_fp8": 1.4, "tower_forward": 1.3, "tower_backward": 1.28, "host_layer": 0.5},
        {"decoder": 0.8, "decoder_torch": 1.2, "torch_tower_forward": 0.7, "torch_tower_backward": 1.4, "update": 0.6},
        {"decoder": 1.2, "cross": 1.3, "head": 1.1, "memory": 1.05, "tower_fp8_forward": 0.8, "host_layer": 0.25},
    ],
)
def test_planted_rates_are_found_again(tmp_path: Path, factors: dict[str, float]) -> None:
    rates = planted(**factors)
    measured = read(tmp_path, results(rates))
    found = fit(measured.cases, PEAK["H100"], H100, "test")
    for case in measured.cases:
        assert compare(case, PEAK["H100"], found.row).worst() < 0.01, case.name
    for name in (
        "tower_forward",
        "tower_backward",
        "torch_tower_forward",
        "torch_tower_backward",
        "update",
    ):  # alone in their phases
        assert getattr(found.row.rates, name) == pytest.approx(getattr(rates, name), rel=0.01), name
    assert found.row.rates.decoder == pytest.approx(rates.decoder, rel=0.1)  # beside head and cross layers


def test_cases_that_were_not_fitted_to_are_predicted_too(tmp_path: Path) -> None:
    measured = read(tmp_path, results(planted(decoder=1.2, decoder_fp8=1.2, tower_forward=1.3, update=0.7)))
    found = fit(measured.cases, PEAK["H100"], H100, "test")
    held_out = [case for case in measured.cases if case.name not in found.used]
    assert len(held_out) >= 4
    for case in held_out:
        assert compare(case, PEAK["H100"], found.row).worst() < 0.01


def test_scatter_of_the_seconds_scatters_the_prediction_by_no_more(tmp_path: Path) -> None:
    rates = planted(decoder=1.25, tower_forward=1.3, tower_backward=1.2, tower_fp8_forward=1.6, host_layer=0.4)
    measured = read(tmp_path, results(rates, noise=0.04))
    found = fit(measured.cases, PEAK["H100"], H100, "test").row
    assert max(compare(case, PEAK["H100"], found).worst() for case in measured.cases) < 0.06
    assert found.rates.tower_forward == pytest.approx(rates.tower_forward, rel=0.04)
    assert found.rates.decoder_fp8 < 1.6 * H100.rates.decoder_fp8  # nothing ran away


def test_a_rate_that_nothing_depends_on_stays(tmp_path: Path) -> None:
    content = results(planted(decoder=1.2), count=1)  # bf16, no frames
    found = fit(read(tmp_path, content).cases, PEAK["H100"], H100, "test").row
    assert not {"tower_forward", "decoder_fp8", "decoder_torch"} & set(found.fitted) and "decoder" in found.fitted
    assert found.rates.tower_forward == H100.rates.tower_forward
    assert found.measured and found.source == "test"


def test_the_command_fits_writes_and_derives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, table = tmp_path / "results.json", tmp_path / "rates.json"
    path.write_text(json.dumps(results(planted(decoder=1.2, update=0.7))))
    write_table(read_table(), table)
    assert main(["plan", "check", str(path), "--rates", str(table)]) == 1
    assert "cases within 10 %" in capsys.readouterr().out
    page = tmp_path / "pages" / "plan.json"
    words = ["--rates", str(table), "--write", "--also", "H200", "--out", str(page)]
    assert main(["plan", "calibrate", str(path), *words]) == 0
    told = capsys.readouterr().out
    rates, compared = json.loads(page.read_text())["tables"]
    assert len(rates["rows"]) == len(NAMES) and len(compared["rows"]) == len(CASES)
    assert all(len(row) == len(compared["header"]) for row in compared["rows"])
    assert f"{len(CASES)} of {len(CASES)} cases within 10 %" in told and "not determined" in told and "* fitted to" in told
    rows = read_table(table)
    assert rows["H100"].measured and rows["H100"].source == "results.json 2026-11-28"
    assert rows["H200"].rates == rows["H100"].rates and not rows["H200"].measured and "H100" in rows["H200"].source
    assert rows["A100"] == read_table()["A100"]
    assert main(["plan", "check", str(path), "--rates", str(table), "--within", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["gpu"] == "H100" and len(shown["cases"]) == len(CASES)
    assert all(abs(case["step"]["error"]) < 0.02 and case["memory"]["error"] == 0 for case in shown["cases"])


def test_memory_that_is_far_off_fails_however_well_seconds_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = results(H100.rates, count=3)
    content["cases"][2]["memory"]["peak"] *= 1.2
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    assert main(["plan", "calibrate", str(path)]) == 1
    assert f"largest error 16.7% ({CASES[2][0]})" in capsys.readouterr().out


def test_phases_alone_are_compared(tmp_path: Path) -> None:
    content = results(H100.rates, count=2)
    case = content["cases"][1]
    case["seconds"] = {"encode": case["seconds"]["encode"] * 1.25}
    del case["memory"]
    found = compare(read(tmp_path, {**content, "cases": [case]}).cases[0], PEAK["H100"], H100)
    assert found.step is None and found.memory is None and found.worst() == pytest.approx(0.2)


def test_without_an_optimizer_neither_its_time_nor_its_memory_counts(tmp_path: Path) -> None:
    content = results(H100.rates, count=3)
    case = content["cases"][2]
    with_it, without = (
        compare(read(tmp_path, {**content, "cases": [which]}).cases[0], PEAK["H100"], H100)
        for which in (case, {**case, "updates": False})
    )
    assert with_it.memory is not None and without.memory is not None and with_it.step is not None and without.step is not None
    assert without.memory.predicted < with_it.memory.predicted
    assert without.step.predicted == pytest.approx(with_it.step.predicted - with_it.phases["optimizer"].predicted)


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["cases"][0].pop(key)


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("change", "words", "named"),
    [
        (_without("overrides"), [], "has no 'overrides'"),
        (_without("samples"), [], "has no 'samples'"),
        (lambda content: content["cases"][0]["seconds"].update(decode="fast"), [], "seconds.decode is 'fast'"),
        (lambda content: content["cases"][0].update(overrides=["stage=pt3"]), [], "pt3"),
        (_set(cases=[]), [], "holds no measured case"),
        (_set(hardware={}), [], "hardware has no 'device'"),
        (_set(hardware={"device": "NVIDIA B300"}), [], "the results are of 'NVIDIA B300'"),
        (_set(), ["--gpu", "B1"], "--gpu is 'B1'"),
        (_set(), ["--within", "0"], "--within is 0"),
        (_set(), ["--rates", "nowhere.json"], "nowhere.json cannot be read"),
        (_set(), ["--also", "H200"], "it goes with --write"),
        (_set(), ["--write", "--also", "H100"], "--also has H100"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    change: Callable[[dict[str, Any]], None], words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = results(H100.rates, count=2)
    change(content)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    assert main(["plan", "calibrate", str(path), *words]) == 2
    assert named in capsys.readouterr().err


def test_files_of_two_cards_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{gpu}.json" for gpu in ("H100", "H200")]
    for path in paths:
        path.write_text(json.dumps(results(H100.rates, path.stem, 1)))
    with pytest.raises(InputError, match="of different cards"):
        read_results(paths)


def test_a_case_that_failed_or_is_of_another_engine_is_left_out(tmp_path: Path) -> None:
    content = results(H100.rates, count=2)
    other = {**content["cases"][0], "overrides": [*content["cases"][0]["overrides"], "engine=deepspeed"]}
    content["cases"].append(other)
    content["cases"].append({"name": "too large", "failed": "out of memory"})
    assert len(read(tmp_path, content).cases) == 2


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({}, "has no rates"),
        ({"rates": {"decoder": 0.5}}, "misses cross"),
        ({"rates": {**vars(H100.rates), "speed": 1.0}}, "has unknown speed"),
        ({"rates": {**vars(H100.rates), "cross": 0}}, "cross is 0"),
    ],
)
def test_a_table_that_is_wrong_is_refused(row: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"H100": row}))
    with pytest.raises(InputError, match=named):
        read_table(path)


def test_the_table_has_every_card_and_reads_back(tmp_path: Path) -> None:
    rows = read_table()
    assert set(rows) == set(PEAK) and not rows["A100"].measured and rows["H100"].measured
    write_table(rows, tmp_path / "rates.json")
    assert read_table(tmp_path / "rates.json") == rows
    assert all(set(row.fitted) <= set(NAMES) and row.source for row in rows.values())
    assert isinstance(Row(H100.rates, True, "x").to_dict()["rates"]["decoder"], float)
