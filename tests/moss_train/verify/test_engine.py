"""The checks of Transformer Engine and fp8: what they ask for, how they judge, and on a GPU what they find."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.fp8 import fp8_problem
from moss_train.cli.main import main
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.verify.engine import curves, distances, repeats, report, rotary
from moss_train.verify.engine.speed import layer_flops
from moss_train.verify.engine.subject import CURRENT, DELAYED, ENGINE, check_config, learnable_pack

RECORD = Path(__file__).parents[3] / "docs" / "benchmarks" / "transformer-engine.json"
needs_fp8 = pytest.mark.skipif(fp8_problem() is not None, reason="needs Transformer Engine and a GPU with fp8")


def _verdicts(found: dict[str, Any]) -> list[report.Verdict]:
    return [verdict for name, judge in report.JUDGES.items() for verdict in judge(found[name])]


def test_the_recorded_numbers_keep_their_bounds() -> None:
    found = json.loads(RECORD.read_text())
    assert found["steps"] == 200 and len(found["curves"][DELAYED.name]["losses"]) == 200
    assert [v.name for v in _verdicts(found) if not v.kept] == []


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda d: d["distances"]["layers"][2]["alone"].update({ENGINE.name: 0.02}), "worst layer alone"),
        (lambda d: d["distances"]["layers"][1]["alone"].update({CURRENT.name: 0.03}), "cross layers of fp8 current"),
        (lambda d: d["distances"]["layers"][0]["alone"].update({DELAYED.name: 0.0066}), "self layers of fp8 delayed: bf16's"),
        (lambda d: d["rotary"].update({"one pack from separate samples, bf16": 0.3}), "rotary: one pack"),
        (lambda d: d["repeats"]["tower encoded again, fp8"].update(features=1e-6), "tower encoded again, fp8: features"),
        (lambda d: d["curves"][CURRENT.name].update(mean_difference=0.8), "curve of fp8 current: mean"),
    ],
)  # fmt: skip
def test_each_bound_can_be_broken(spoil: Any, named: str) -> None:
    found = copy.deepcopy(json.loads(RECORD.read_text()))
    spoil(found)
    broken = [v.name for v in _verdicts(found) if not v.kept]
    assert broken and any(name.startswith(named) for name in broken)


def test_a_pack_of_the_checks_can_be_learned() -> None:
    pack = learnable_pack(check_config(), 3, ((40, 3), (24, 0)))
    for sample in range(2):
        rows = slice(*(int(b) for b in pack.cu_seqlens[sample : sample + 2]))
        ids, targets = pack.input_ids[rows], pack.targets[rows]
        inner = (ids[:-2] < 31) & (targets[1:-1] >= 0) & (ids[1:-1] < 31)
        steps = (targets[1:-1] - ids[1:-1])[inner] % 31
        assert len(set(steps.tolist())) == 1
    assert pack.num_frames == int((pack.input_ids == check_config().image_token_id).sum()) == 3
    assert pack.frame_end.max() == 3 and pack.frame_begin[:40].max() == 0


def test_products_of_a_self_layer_are_counted() -> None:
    text = check_config().text
    weights = 256 * 256 * 2 + 2 * 256 * 128 + 3 * 256 * 512
    assert layer_flops(text, (10, 6)) == 6 * weights * 16 + 6 * 256 * 136


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what a machine without CUDA says")
def test_the_command_names_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["verify", "engine", "--json", str(tmp_path / "found.json")]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "found.json").exists()


@pytest.fixture(scope="module")
def gpu() -> Iterator[ParallelLayout]:
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    start_world(device)
    yield start_layout(ParallelConfig(), device, seed=1)
    stop_layout()
    stop_world()


@pytest.mark.gpu
@needs_fp8
@pytest.mark.parametrize("name", ["distances", "rotary", "repeats"])
def test_bounds_are_kept_on_this_gpu(gpu: ParallelLayout, name: str) -> None:
    measure = {"distances": distances.measure, "rotary": rotary.measure, "repeats": repeats.measure}[name]
    assert [v for v in report.JUDGES[name](measure(gpu)) if not v.kept] == []


@pytest.mark.gpu
@needs_fp8
def test_fp8_learns_as_bf16_does(gpu: ParallelLayout) -> None:
    found = curves.measure(gpu, 60, (ENGINE, DELAYED, CURRENT))
    assert [v for v in report.JUDGES["curves"](found) if not v.kept] == []
