"""Global batches of a real run of two ranks, continued on one, read again in this process."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_pipeline.packing.batch import IGNORE_INDEX, TOKEN_CLASSES
from model.errors import InputError
from moss_train.cli.main import main
from moss_train.config.schema import RunConfig
from moss_train.feed.sample_log import read_sample_log
from moss_train.parallel.layout import stop_layout
from moss_train.replay.losses import choose_checkpoint, token_losses
from moss_train.replay.run import ReplayedStep, read_records, replay_step
from moss_train.replay.views import view_step
from moss_train.run_folder import RunFolder
from moss_train.trainer import train
from tests.data_pipeline.loader.damage import damage
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import RunRanks

pytestmark = pytest.mark.ranks

STEPS, ON_TWO, BATCH = 7, 4, 4
ALL_CHECKS = 3


def config(root: Path, steps: int) -> RunConfig:
    values: dict[str, Any] = {
        "train__global_batch_size": BATCH, "train__save_every": 2, "train__eval_batches": 0, "checkpoint__keep_every": 2,
        "data__global_data_workers": 4, "data__worker_processes": 0, "data__log_samples": True, "data__samples_per_pack": 2,
        "stage__silence_token_weight": 0.5,
    }  # fmt: skip
    return run_config(root / "data", root / "run", "pt2", steps, **values)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, run_ranks: RunRanks) -> Path:
    """A run of data of which some videos cannot be decoded: four steps on two ranks, three more on one."""
    root = tmp_path_factory.mktemp("replayed")
    write_data(root / "data")
    damage(root / "data" / "video", v4="no_media", v11="no_media", v2="no_media", v13="json")
    run_ranks("tests.moss_train.train_ranks", 2, save_run_config(config(root, ON_TWO), root / "two.yaml"))
    stop_layout()
    train(config(root, STEPS))
    stop_layout()
    return root


def test_every_step_is_what_the_run_had(root: Path) -> None:
    """By its sample log, its checksums and its counts, before and after the change of size."""
    logged = read_sample_log(root / "run")
    assert sorted(logged) == list(range(1, STEPS + 1))
    assert '"at": "decode"' in (root / "run" / "quarantine.jsonl").read_text()
    for step in logged:
        found = replay_step(root / "run", step)
        assert [[key for key in batch.sample_keys if key] for batch in found.batches.values()] == logged[step]
        assert len(found.checks.equal) == ALL_CHECKS and not found.checks.notes, (step, found.checks)
        begin = (step - 1) // 2 * 2
        assert found.source.endswith("the beginning of the data" if begin == 0 else f"step_{begin:08d}"), found.source


def test_without_checkpoints_reading_begins_at_the_beginning(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    passed: list[tuple[int, int]] = []
    found = replay_step(tmp_path / "run", 6, only=[3], on_passed=lambda done, total: passed.append((done, total)))
    assert found.source.endswith("the beginning of the data") and list(found.batches) == [3]
    assert passed == [(n, 5) for n in range(1, 6)]
    assert len(found.checks.equal) == 2  # the counts are those of whole global batches


def test_a_damaged_checkpoint_is_passed_by(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step_00000004" / "loader_00001.pt").write_bytes(b"no")
    found = replay_step(tmp_path / "run", 5)
    assert found.source.endswith("step_00000002") and len(found.checks.equal) == ALL_CHECKS
    assert any("loader_00001.pt cannot be read" in note for note in found.checks.notes)


def test_losses_are_those_of_the_run(root: Path) -> None:
    """Where the checkpoint is that of the step before; elsewhere it is said."""
    for step in (3, 5, 7):
        found = replay_step(root / "run", step)
        losses = token_losses(found, choose_checkpoint(found, None))
        assert found.record is not None and losses.checkpoint_step == step - 1
        assert losses.loss == pytest.approx(found.record["loss"], rel=1e-6)
        for name, value in losses.class_loss.items():
            assert value == pytest.approx(found.record[f"loss_{name}"], rel=1e-5)
        assert view_step(found, losses).comparable
    found = replay_step(root / "run", 6)
    view = view_step(found, token_losses(found, choose_checkpoint(found, None)))
    assert not view.comparable and "behind step 4; the run had the weights behind step 5" in view.notes[-1]


def test_tokens_carry_the_mask_and_the_frames_of_their_rows(root: Path) -> None:
    found = replay_step(root / "run", 3)
    for part in view_step(found).micro_batches:
        batch = found.batches[part.number]
        learned = {t.row - 1 for s in part.samples for t in s.tokens if t.token_class != TOKEN_CLASSES[0]}
        assert learned == set((batch.targets != IGNORE_INDEX).nonzero()[:, 0].tolist()) != set()
        assert [t.frame for s in part.samples for t in s.tokens if t.frame is not None] == list(range(batch.num_frames))
        for sample in part.samples:
            for token in sample.tokens:
                assert token.visible == (int(batch.frame_begin[token.row]), int(batch.frame_end[token.row]))
                assert token.frame is None or token.visible == (sample.frames[0], token.frame + 1)
        assert any("it is" in "".join(t.text for t in s.tokens) for s in part.samples)


def test_the_command_prints_and_writes(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["--micro-batch", "1", "--micro-batch", "2", "--loss", "--out", str(out), "--json"]
    assert main(["replay", str(root / "run"), "step=5", *words]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "replay.json").read_text())
    assert [part["number"] for part in printed["micro_batches"]] == [1, 2] and printed["checkpoint_step"] == 4
    found = replay_step(root / "run", 5)
    for number in (1, 2):
        tensors, batch = load_file(str(out / f"micro_batch_{number:03d}.safetensors")), found.batches[number]
        assert torch.equal(tensors["frames"], batch.frames) and torch.equal(tensors["targets"], batch.targets)
        assert int((tensors["losses"] > 0).sum()) == batch.num_targets
        for frame in range(batch.num_frames):
            with Image.open(out / f"micro_batch_{number:03d}" / f"frame_{frame:03d}.png") as picture:
                assert torch.equal(torch.from_numpy(_pixels(picture)).permute(2, 0, 1), batch.frames[frame])
    page = (out / "index.html").read_text()
    frames = sum(found.batches[number].num_frames for number in (1, 2))
    answers = sum(bool(key) for number in (1, 2) for key in found.batches[number].sample_keys)
    assert page.count("<figure") == frames > 0 and page.count('<span class="first_answer" style=') == answers
    assert main(["replay", str(root / "run"), "step=5", "--no-text"]) == 0
    assert "pixels, by the run's sample log" in " ".join(capsys.readouterr().out.split())


def _pixels(picture: Image.Image) -> Any:
    return np.array(picture)


def test_data_that_have_moved(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "run", tmp_path / "run")
    shutil.copytree(root / "data", tmp_path / "elsewhere")
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace(str(root / "data"), "/gone"))
    with pytest.raises(InputError, match=r"/gone/text"):
        replay_step(tmp_path / "run", 3)
    found = replay_step(tmp_path / "run", 3, [f"data.root={tmp_path / 'elsewhere'}"])
    assert len(found.checks.equal) == ALL_CHECKS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["step=0"], r"step=0: steps are counted from 1"),
        (["step=8"], r"step=8: the run has 7 steps"),
        (["step=x"], r"step=x is no number"),
        ([], r"Add step=N"),
        (["step=3", "data.root"], r"'data.root' is not of the form KEY=VALUE"),
        (["step=3", "--micro-batch", "4"], r"micro-batches 0 to 3"),
        (["step=3", "data.seed=1"], r"made with data\.seed = 42, now it is 1"),
        (["step=1", "data.seed=1"], r"micro-batch 0 of step 1 holds .* where the run had"),
        (["step=1", "--loss"], r"keeps no checkpoint from before step 1; give one with --checkpoint"),
        (["step=3", "--checkpoint", "/nowhere"], r"/nowhere does not exist"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(root: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(root / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1, error


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run folder: it has no config\.yaml"):
        replay_step(tmp_path, 1)


def test_samples_that_changed_since_are_noticed(root: Path, tmp_path: Path) -> None:
    """Rows by their checksum; counts by the metrics where there is no log."""
    shutil.copytree(root / "run", tmp_path / "run")
    log = tmp_path / "run" / "samples_00001.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    changed = next(line for line in lines if line["step"] == 2)
    changed["rows"] = "00000000"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=rf"micro-batch {changed['micro_batch']} of step 2 .* with other rows"):
        replay_step(tmp_path / "run", 2)
    del changed["rows"]
    changed["pixels"] = "ffffffff"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "pixels differ" in replay_step(tmp_path / "run", 2).checks.notes[0]
    for path in (tmp_path / "run").glob("samples_*"):
        path.unlink()
    metrics = tmp_path / "run" / "metrics.jsonl"
    rows = list(read_records(RunFolder(tmp_path / "run")))
    metrics.write_text("".join(json.dumps(row | {"frames": 1000}) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"frames where metrics\.jsonl of the run says 1000"):
        replay_step(tmp_path / "run", 2)


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    yield
    stop_layout()


def test_a_step_that_was_not_reached_can_be_looked_at(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "run", tmp_path / "run")
    found: ReplayedStep = replay_step(tmp_path / "run", 9, ["train.steps=9"])
    assert len(found.batches) == BATCH and len(found.checks.notes) == 2
