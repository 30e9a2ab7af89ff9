"""Real runs in which updates are left out or taken back, whole and killed and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import InputError
from moss_train.checkpoint.description import read_description
from moss_train.guards.anomaly import read_anomaly
from moss_train.monitors.base import Monitor, Update
from moss_train.parallel.layout import stop_layout
from moss_train.setup import start_session
from moss_train.trainer import Outcome, Trainer
from tests.moss_train.checkpoint.folders import names_in
from tests.moss_train.checkpoint.unblocking import After
from tests.moss_train.resume_ranks import leave_as_killed, rows
from tests.moss_train.runs import run_config, write_data

HERE: dict[str, Any] = {"data__global_data_workers": 1, "data__worker_processes": 0, "train__eval_batches": 0}


class Fault(Monitor):
    """Gradient norms of some steps are no numbers, or too large, as after a fault of the hardware."""

    def __init__(self, steps: tuple[int, ...], factor: float) -> None:
        self._steps, self._factor = steps, factor

    def prepared(self, update: Update) -> None:
        if update.step in self._steps:
            update.grad_norm *= self._factor


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    yield
    stop_layout()


def run(
    data: Path, run_dir: Path, steps: int, *faults: int, stage: str = "pt2", factor: float = float("nan"),
    after: Callable[[int], None] | None = None, **changes: Any,
) -> tuple[Outcome, Trainer]:  # fmt: skip
    stop_layout()
    made = () if after is None else (After(after).make,)
    trainer = Trainer(start_session(run_config(data, run_dir, stage, steps, **HERE | changes)), made)
    trainer._monitors.append(Fault(faults, factor))
    return trainer.run(), trainer


def weights(trainer: Trainer) -> list[torch.Tensor]:
    models = trainer._session.models
    modules: list[torch.nn.Module] = [*models.chunks, models.unit]
    return [p.detach().clone() for module in modules for p in module.parameters()]


def equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def decisions(run_dir: Path) -> list[dict[str, Any]]:
    """What the numbers were, and what was done about them."""
    keys = ("step", "loss", "grad_norm", "learning_rate", "skipped", "skip_reason", "rewound_to")
    return [{key: row[key] for key in keys if key in row} for row in rows(run_dir)]


def test_a_skipped_update_leaves_the_weights(data: Path, tmp_path: Path) -> None:
    _, before = run(data, tmp_path / "before", 2)
    kept = weights(before)
    outcome, after = run(data, tmp_path / "after", 3, 3, guard__non_finite="skip")
    assert not equal(kept, [torch.zeros_like(p) for p in kept]) and equal(kept, weights(after))
    description = read_description(outcome.checkpoint or tmp_path)
    assert (description.step, description.applied) == (3, 2)
    last = rows(tmp_path / "after")[-1]
    assert last["skipped"] is True and last["skip_reason"] == "grad_norm is nan"

    folder = tmp_path / "after" / "anomalies" / "step_00000003"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["reason"] == "grad_norm is nan" and summary["grad_norm"] == "nan" and summary["action"] == "skip"
    assert summary["loss"] == last["loss"] and summary["updates"] == 2 and summary["grad_norms"]["vision_tower"] > 0
    batches = read_anomaly(folder)
    assert sum(batch.num_targets for batch in batches) == last["targets"]
    assert sum(batch.num_frames for batch in batches) == last["frames"] and all(batch.sample_keys for batch in batches)
    assert {batch.frames.dtype for batch in batches} == {torch.uint8}


def test_a_rewound_run_has_the_weights_of_its_checkpoint(data: Path, tmp_path: Path) -> None:
    """Steps 3 and 4 are taken back with 5; the schedule and the data go on."""
    _, before = run(data, tmp_path / "before", 2)
    kept = weights(before)
    changes: dict[str, Any] = {"guard__non_finite": "rewind", "train__save_every": 2}
    outcome, after = run(data, tmp_path / "after", 5, 4, 5, **changes)
    assert equal(kept, weights(after))
    assert read_description(outcome.checkpoint or tmp_path).applied == 2
    (row,) = [row for row in rows(tmp_path / "after") if row.get("step") == 5]
    assert row["rewound_to"] == 4, "step 4 was saved, with the weights of step 2"


def test_rewinding_does_not_save_what_could_not_be_saved_before(data: Path, tmp_path: Path) -> None:
    """The checkpoint of step 4 failed: when step 6 is taken back, the state of step 5 must not be saved under its name."""
    checkpoints = tmp_path / "run" / "checkpoints"

    def after(step: int) -> None:
        if step == 3:
            (checkpoints / "step_00000004.2.tmp").write_text("in the way of the second attempt")

    changes: dict[str, Any] = {
        "stage": "warm_text", "guard__non_finite": "rewind", "train__save_every": 2, "checkpoint__keep_last": 9,
        "checkpoint__asynchronous": False, "checkpoint__retry_seconds": 999.0, "checkpoint__end_retry_seconds": 0.1,
    }  # fmt: skip
    run(data, tmp_path / "run", 7, 6, after=after, **changes)
    assert [row["rewound_to"] for row in rows(tmp_path / "run") if "rewound_to" in row] == [2]
    names = [name for name in names_in(tmp_path / "run") if not name.endswith(".tmp")]
    assert names == ["step_00000002", "step_00000006", "step_00000007"]


def test_a_run_that_stops_finishes_the_checkpoint_that_is_being_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grad_norm is nan in step 3"):
        run(data, tmp_path / "run", 5, 3, stage="warm_text", train__save_every=2)
    assert names_in(tmp_path / "run") == ["step_00000002"]


def test_a_run_continued_from_another_folder_rewinds_to_there(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "one", 2, stage="warm_text")
    changes: dict[str, Any] = {"stage": "warm_text", "guard__non_finite": "rewind", "train__resume": str(tmp_path / "one")}
    outcome, _ = run(data, tmp_path / "two", 4, 3, **changes)
    assert [row["rewound_to"] for row in rows(tmp_path / "two") if "rewound_to" in row] == [2]
    assert outcome.checkpoint == tmp_path / "two" / "checkpoints" / "step_00000004"


def test_rewinding_needs_a_checkpoint(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grad_norm is nan in step 2, and there is no checkpoint yet to rewind to"):
        run(data, tmp_path / "run", 5, 2, stage="warm_text", guard__non_finite="rewind")


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_killed_run_leaves_out_the_same_updates(data: Path, tmp_path: Path, policy: str) -> None:
    """Spikes before and behind the checkpoint from which it goes on, measured against updates before it."""
    changes: dict[str, Any] = {
        "train__save_every": 3, "guard__spike": policy, "guard__spike_factor": 5.0,
        "guard__spike_window": 3, "guard__spike_warmup": 2, "factor": 10.0,
    }  # fmt: skip
    _, whole = run(data, tmp_path / "whole", 5, 1, 4, **changes)
    leave_as_killed(tmp_path / "whole", tmp_path / "killed")
    expected = weights(whole)
    _, resumed = run(data, tmp_path / "killed", 5, 1, 4, **changes)
    found = decisions(tmp_path / "whole")
    assert decisions(tmp_path / "killed") == found
    assert equal(expected, weights(resumed))
    left_out = [row["step"] for row in found if row.get("skipped")]
    assert left_out == [4], "the first step had nothing to be measured against"
    assert [row.get("rewound_to") for row in found] == [None] * 3 + [3 if policy == "rewind" else None, None]


def test_old_folders_go_and_a_full_disk_ends_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes: dict[str, Any] = {"guard__non_finite": "skip", "guard__keep_anomalies": 2, "stage": "warm_text"}
    run(data, tmp_path / "run", 4, 1, 2, 3, **changes)
    assert sorted(p.name for p in (tmp_path / "run" / "anomalies").iterdir()) == ["step_00000002", "step_00000003"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "anomalies").write_text("in the way")
    outcome, _ = run(data, tmp_path / "full", 2, 1, **changes)
    assert outcome.finished and "moss: warning: the batch of step 1 cannot be written" in capsys.readouterr().err


def test_damaged_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no batch"):
        read_anomaly(tmp_path)
    (tmp_path / "replica_00000.json").write_text("[{}]")
    (tmp_path / "replica_00000.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"replica_00000.safetensors cannot be read"):
        read_anomaly(tmp_path)
