"""Runs with every choice of optimizer: continued exactly, also by another layout, and what the next stage starts from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.conversion.folder import read_hf_folder
from model.errors import InputError
from moss_train.checkpoint.averages import PREFIX
from moss_train.checkpoint.description import find_checkpoint
from moss_train.checkpoint.tensors import CheckpointTensors
from moss_train.convert.compare import compare_tensors
from moss_train.convert.to_hf import checkpoint_to_hf
from moss_train.parallel.layout import stop_layout
from moss_train.trainer import train
from tests.moss_train.engines.optimizer_runs_ranks import CASES, HERE
from tests.moss_train.runs import run_config, write_data
from tests.ranks import RunRanks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    """Each run starts its own layout, also after one that was refused."""
    stop_layout()
    yield
    stop_layout()


@pytest.mark.ranks
def test_continued_runs_equal_whole_ones(run_ranks: RunRanks, data: Path, tmp_path: Path) -> None:
    output = run_ranks("tests.moss_train.engines.optimizer_runs_ranks", 2, data, tmp_path, timeout=200)
    report = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert report.keys() == CASES.keys()
    for case, found in report.items():
        assert found["dp2"] == found["whole"], case
        stored, continued = (CheckpointTensors(find_checkpoint(tmp_path / name)) for name in (case, f"{case}_dp2"))
        assert stored.index.tensors.keys() == continued.index.tensors.keys()
        assert any(key.startswith(PREFIX) for key in stored.index.tensors) == (case != "muon")
        for key, tensor in stored.index.tensors.items():
            rows = tensor.info.shape[0]
            assert torch.equal(stored.read_rows(key, 0, rows), continued.read_rows(key, 0, rows)), (case, key)
        whole, other = ([row["loss"] for row in found[name] if "loss" in row] for name in ("whole", "tp2"))
        # bf16 products split over ranks round differently; in fp32 only sums do.
        assert other == pytest.approx(whole, rel=5e-2 if case == "halves" else 1e-4), case
    rates = [(row["learning_rate"], row["vision_learning_rate"]) for row in report["fp32"]["whole"] if "loss" in row]
    assert rates[0] == rates[1] == (3e-3, 3e-3) and rates[2][0] < 3e-3 and rates[-1] == (0.0, 0.0)


def test_a_stage_starts_from_averages(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of trained weights the average, of frozen ones the weight; a Hugging Face folder of them holds the same."""

    def run(name: str, **changes: object) -> None:
        stop_layout()
        train(run_config(data, tmp_path / name, "pt1", 0 if name == "next" else 3, train__eval_batches=0, **HERE, **changes))  # type: ignore[arg-type]
        stop_layout()

    run("one", optimizer__ema_decay=0.9)
    run("next", train__init_from=str(tmp_path / "one"), train__init_ema=True)
    assert "starting from the averages of 2 trained tensors and the other weights of" in capfd.readouterr().out
    one, after = (CheckpointTensors(find_checkpoint(tmp_path / name)) for name in ("one", "next"))
    trained = {key.removeprefix(PREFIX) for key in one.index.tensors if key.startswith(PREFIX)}
    assert trained == {"vision.multi_modal_projector.weight", "vision.multi_modal_projector.bias"}
    for key in (key for key in after.index.tensors if not key.startswith("optimizer.")):
        rows = one.info(key).shape[0]
        expected = one.read_rows(PREFIX + key if key in trained else key, 0, rows)
        assert torch.equal(after.read_rows(key, 0, rows), expected), key
        assert key not in trained or not torch.equal(expected, one.read_rows(key, 0, rows))
    checkpoint, folder = checkpoint_to_hf(tmp_path / "one", tmp_path / "hf", average=True)
    assert compare_tensors(checkpoint, folder, average=True).differing == []
    assert len(compare_tensors(checkpoint, folder).differing) == 2
    assert "multi_modal_projector.weight" in read_hf_folder(folder)[1]
    with pytest.raises(InputError, match="is a Hugging Face folder, which holds no averages"):
        run("refused", train__init_from=str(folder), train__init_ema=True)
    with pytest.raises(InputError, match=r"holds no average of weights: its run had optimizer\.ema_decay 0"):
        run("refused", train__init_from=str(tmp_path / "next"), train__init_ema=True)


@pytest.mark.parametrize("saved", [{"optimizer__master": "remainders"}, {"optimizer__ema_decay": 0.0}])
def test_another_choice_of_states_does_not_continue(data: Path, tmp_path: Path, saved: dict[str, object]) -> None:
    """Whole fp32 weights are not in a checkpoint of lower halves, nor averages in one of a run without."""
    changes = {"precision__dtype": "bf16", "train__eval_batches": 0, **HERE}
    train(run_config(data, tmp_path / "run", "pt1", 1, **changes, **saved))
    stop_layout()
    with pytest.raises(InputError, match="it was saved with another optimizer, other dtypes of its states"):
        train(run_config(data, tmp_path / "run", "pt1", 2, **changes, optimizer__ema_decay=0.9))


def test_init_ema_needs_a_source(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"init_ema is true without train\.init_from"):
        run_config(data, tmp_path / "run", train__init_ema=True)
