"""Whole runs on one rank: every stage, continuing, ending early, and input that cannot work."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from data_pipeline.shards.emission import measure_emission
from data_pipeline.text.tokenizer import Tokenizer
from inference.model.folder import read_config
from inference.session.pacing import TrainedPace, trained_pace
from model.conversion import gather_hf_weights
from model.errors import InputError
from moss_train.checkpoint import load_model_weights, save_model_only
from moss_train.checkpoint.description import read_description
from moss_train.config.schema import ParallelConfig
from moss_train.convert.to_hf import checkpoint_to_hf
from moss_train.engines.models import build_models
from moss_train.monitors.base import Monitor
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device
from moss_train.setup import start_session
from moss_train.trainer import Outcome, Trainer, train
from tests.data_pipeline.helpers import realtime_sample
from tests.moss_train.resume_ranks import leave_as_killed, rows
from tests.moss_train.runs import run_config, run_model, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small dataset for all tests here."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    """Each run starts its own layout."""
    yield
    stop_layout()


def run(data: Path, run_dir: Path, *args: Any, **changes: Any) -> Outcome:
    """Train in this process, with the loader in it too."""
    stop_layout()
    return train(run_config(data, run_dir, *args, data__global_data_workers=1, data__worker_processes=0, **changes))


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    """Published names to tensors of a run's newest checkpoint."""
    stop_layout()
    device = resolve_device("auto")
    start_world(device)
    models = build_models(run_model(), start_layout(ParallelConfig(), device, 1))
    load_model_weights(run_dir, models.chunks, models.vision)
    weights = gather_hf_weights(models.chunks, models.vision)
    assert weights is not None
    return weights


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """First parts of the names of tensors that differ; cross layers (1 and 3) apart from other text layers."""
    names = {name for name in before if not torch.equal(before[name], after[name])}
    groups = set()
    for name in names:
        part = name.split(".")[0]
        if part == "language_model":
            part = "cross" if any(f"layers.{i}." in name for i in (1, 3)) else "text"
        groups.add(part)
    return groups


def test_stages_follow_each_other(data: Path, tmp_path: Path) -> None:
    """Each stage starts from the one before, trains what it should, and its held-out loss falls."""
    trained = {
        "warm_vision": {"vision_model"},
        "warm_text": {"text", "cross"},  # the gates are opened, or nothing would reach the projector
        "pt1": {"multi_modal_projector"},
        "pt2": {"vision_model", "multi_modal_projector", "cross", "text"},
    }
    run(data, tmp_path / "start", "pt2", 0, stage__gate_init=None)
    before, previous = weights_of(tmp_path / "start"), "start"
    for stage, expected in trained.items():
        gates = 0.5 if stage == "warm_text" else None
        run(data, tmp_path / stage, stage, 6, train__init_from=str(tmp_path / previous), stage__gate_init=gates)
        after = weights_of(tmp_path / stage)
        assert changed(before, after) == expected, stage
        losses = [row["eval_loss"] for row in rows(tmp_path / stage) if "eval_loss" in row]
        assert len(losses) == 2 and losses[1] < losses[0], (stage, losses)
        assert sum("loss" in row for row in rows(tmp_path / stage)) == 6
        before, previous = after, stage
    description = read_description(tmp_path / "pt2" / "checkpoints" / "step_00000006")
    assert description.stage["name"] == "pt2" and description.config == run_model()


def test_the_pace_of_timed_dialogues_reaches_the_published_checkpoint(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "timed"
    write_samples(folder, [realtime_sample(i) for i in range(8)], samples_per_shard=4)
    timed = {"name": "timed", "path": str(folder), "modality": "realtime"}
    changes = {"data__datasets": [timed], "data__mixture": {"realtime": 1.0}, "data__validation": []}
    run(data, tmp_path / "run", "sft_realtime", 1, **changes)
    expected = measure_emission([folder], Tokenizer.from_file(data))
    assert expected is not None and expected["fps"] == 1.0 and expected["tokens_per_frame"] > 1
    assert read_description(tmp_path / "run" / "checkpoints" / "step_00000001").stage["emission"] == expected
    checkpoint_to_hf(tmp_path / "run", tmp_path / "hf")
    _, details = read_config(tmp_path / "hf", None)
    assert trained_pace(details, "hf") == TrainedPace(expected["tokens_per_frame"], 1.0)


def test_gates_are_written(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "warm_text", 0, stage__gate_init=0.25)
    gates = [tensor for name, tensor in weights_of(tmp_path / "run").items() if name.endswith(("attn_gate", "mlp_gate"))]
    assert len(gates) == 4 and all(gate.item() == 0.25 for gate in gates)


@pytest.mark.parametrize(
    "optimizer",
    [
        {},
        {"optimizer__distributed": False},
        {"optimizer__distributed": False, "optimizer__name": "sgd"},
        {"precision__dtype": "bf16"},
    ],
)
def test_continued_run_equals_whole_run(data: Path, tmp_path: Path, optimizer: dict[str, Any]) -> None:
    run(data, tmp_path / "whole", "pt2", 5, train__save_every=3, **optimizer)
    leave_as_killed(tmp_path / "whole", tmp_path / "killed")
    run(data, tmp_path / "killed", "pt2", 5, train__save_every=3, **optimizer)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    one, two = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_old_checkpoints_go(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "warm_text", 5, train__save_every=1, train__keep_last=2, train__eval_batches=0)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step_00000004", "step_00000005"]
    assert (tmp_path / "run" / "latest").read_text() == "step_00000005"


class Terminate(Monitor):
    """Sends this process a signal after a step."""

    def __init__(self, at: int, number: int) -> None:
        self._at, self._number = at, number

    def stepped(self, record: dict[str, Any]) -> None:
        if record["step"] == self._at:
            signal.raise_signal(self._number)  # reaches this thread before it goes on


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_the_run_can_go_on(data: Path, tmp_path: Path, number: int) -> None:
    stop_layout()
    before = signal.getsignal(number)
    changes: dict[str, Any] = {"data__global_data_workers": 1, "data__worker_processes": 0, "train__eval_batches": 0}
    trainer = Trainer(start_session(run_config(data, tmp_path / "run", "warm_text", 6, **changes)))
    trainer._monitors.append(Terminate(2, number))
    outcome = trainer.run()
    assert not outcome.finished and outcome.step == 3 and outcome.checkpoint is not None
    assert outcome.checkpoint.name == "step_00000003"
    assert signal.getsignal(number) == before
    assert run(data, tmp_path / "run", "warm_text", 6, train__eval_batches=0).step == 6
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_an_evaluation_that_a_signal_left_out_is_made_when_the_run_goes_on(data: Path, tmp_path: Path) -> None:
    """It was due behind the step in which the run was told to end, where the checkpoint comes first."""
    changes: dict[str, Any] = {"train__eval_every": 3, "data__global_data_workers": 1, "data__worker_processes": 0}
    run(data, tmp_path / "whole", "warm_text", 6, train__eval_every=3)
    stop_layout()
    trainer = Trainer(start_session(run_config(data, tmp_path / "run", "warm_text", 6, **changes)))
    trainer._monitors.append(Terminate(2, signal.SIGTERM))
    assert trainer.run().step == 3
    assert [row["step"] for row in rows(tmp_path / "run") if "eval_loss" in row] == [0]
    run(data, tmp_path / "run", "warm_text", 6, train__eval_every=3)
    whole, found = ([(r["step"], r.get("loss"), r.get("eval_loss")) for r in rows(tmp_path / n)] for n in ("whole", "run"))
    assert found == whole and [step for step, _, held_out in found if held_out is not None] == [0, 3, 6]


def test_loss_that_is_no_number_ends_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is (nan|inf) in step [2-9]; its global batch is in .*step_0000000\d; nothing was saved"
    ):
        run(data, tmp_path / "run", "pt2", 20, stage__learning_rate=1e25, stage__warmup_ratio=0.0, train__eval_batches=0)
    assert not (tmp_path / "run" / "latest").exists()
    assert all(abs(row["loss"]) < float("inf") for row in rows(tmp_path / "run"))


def test_nothing_to_evaluate_on_is_said(data: Path, tmp_path: Path) -> None:
    """A held-out loss of nothing would read as 0."""
    times = [0.0, 1.0, 2.0]
    known: dict[str, Any] = {"width": 32, "height": 32, "rate": 1.0, "duration": 3.0, "num_frames": 3}
    media = Media(type="video", file="0.mp4", markers="per_frame", frame_times=times, **known)
    talk = [Message(role="user", content=""), Message(role="assistant", content="<|video|>" * 3 + "red.")]
    write_samples(tmp_path / "long", [("a", Sample(kind="realtime", messages=talk, media=[media]), {"0.mp4": b"clip"})])
    held_out = [{"name": "long", "path": str(tmp_path / "long"), "modality": "video"}]
    with pytest.raises(InputError, match=r"data\.validation gives too few micro-batches"):
        run(data, tmp_path / "run", "pt2", 1, stage__max_frames_per_pack=2, data__validation=held_out)


def test_a_lost_place_in_the_data_is_one_sentence(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "warm_text", 1, train__eval_batches=0)
    (tmp_path / "run" / "checkpoints" / "step_00000001" / "loader_00000.pt").unlink()
    with pytest.raises(InputError, match=r"loader_00000\.pt cannot be read"):
        run(data, tmp_path / "run", "warm_text", 2, train__eval_batches=0)


def test_weights_only_checkpoint(data: Path, tmp_path: Path) -> None:
    """It starts another run, and is refused as something to continue."""
    run(data, tmp_path / "run", "warm_text", 1, train__eval_batches=0)
    stop_layout()
    models = build_models(run_model(), start_layout(ParallelConfig(), resolve_device("auto"), 1))
    load_model_weights(tmp_path / "run", models.chunks, models.vision)
    save_model_only(tmp_path / "imported", models.chunks, models.vision, run_model(), stage={"name": "warm_text"})
    one, two = weights_of(tmp_path / "run"), weights_of(tmp_path / "imported")
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(InputError, match="weights only"):
        run(data, tmp_path / "imported", "warm_text", 2)


def test_run_folder_says_what_ran(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "warm_text", 1, train__eval_batches=0)
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["torch"].startswith(torch.__version__.split("+")[0]) and versions["ranks"] == 1
    manifest = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [shard["file"] for shard in manifest["train"][0]["shards"]] == ["shard-000000.tar", "shard-000001.tar"]
    assert all(bool(dataset["shards"]) == (dataset["modality"] == "text") for dataset in manifest["train"])
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (data / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__init_from": "/nowhere"}, "/nowhere does not exist"),
        ({"parallel__virtual_pipeline": 2}, "parallel.virtual_pipeline is 2"),
        ({"parallel__tensor": 2}, "does not divide the 1 ranks"),
        ({"data__tokenizer": "absent.json"}, r"absent\.json does not exist"),
        ({"stage__trainable": "vision_tower", "stage__objective": "dense_labels"}, "without dense labels|kind dense"),
    ],
)
def test_bad_input_is_one_sentence(data: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(data, tmp_path / "run", "pt2", 1, train__eval_batches=0, **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "latest").exists()


def test_checkpoint_of_another_model_or_stage(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "warm_text", 1, train__eval_batches=0)
    model = dataclasses.asdict(run_model())
    model["text"]["intermediate_size"] = 64
    with pytest.raises(InputError, match=r"text\.intermediate_size is 64 in this run's model and 48 there"):
        run(data, tmp_path / "other", "pt2", 1, model=model, train__init_from=str(tmp_path / "run"))
    with pytest.raises(InputError, match="belongs to stage 'warm_text'"):
        run(data, tmp_path / "run", "pt2", 1)
    with pytest.raises(InputError, match=r"train\.resume is none"):
        run(data, tmp_path / "run", "warm_text", 1, train__resume="none")
