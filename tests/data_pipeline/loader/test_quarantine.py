"""Damaged samples in real shards: each entered by its name and left out, and the packs are those of a skip list."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.loader import build_loader
from data_pipeline.loader.now_reading import CurrentSample, current_sample
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.shards import write_samples
from model.errors import InputError
from moss_train.config.schema import DataConfig, DatasetConfig
from tests.data_pipeline.helpers import (
    data_config,
    image_sample,
    model_config,
    stage_config,
    text_sample,
    tokenizer,
    video_sample,
)
from tests.data_pipeline.loader.damage import DAMAGES, IMAGE_DAMAGES, TEXT_DAMAGES, damage, truncate

TOKENIZER = tokenizer()
MODEL = model_config()


def loader(data: DataConfig, **values: Any) -> Any:
    return build_loader(data, stage_config(), MODEL, TOKENIZER, **values)


def take(batches: Any, count: int) -> list[PackedMicroBatch]:
    return [next(batches) for _ in range(count)]


def keys(batches: list[PackedMicroBatch]) -> set[str]:
    return {k for b in batches for k in b.sample_keys if k}


def same(a: PackedMicroBatch, b: PackedMicroBatch) -> bool:
    pairs = [(getattr(a, n), getattr(b, n)) for n in vars(a)]
    return a.sample_keys == b.sample_keys and all(torch.equal(x, y) for x, y in pairs if isinstance(x, torch.Tensor))


def entered(ledger: Path) -> list[tuple[str, str, str]]:
    """(key, kind, point) of every line, sorted."""
    return sorted((e["key"], e["kind"], e["at"]) for e in map(json.loads, ledger.read_text().splitlines()))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve samples of each kind in three shards."""
    root = tmp_path_factory.mktemp("healthy")
    for name, make in (("video", video_sample), ("image", image_sample), ("text", text_sample)):
        write_samples(root / name, [make(i) for i in range(12)], samples_per_shard=4)
    return root


@pytest.fixture
def broken(healthy: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(healthy, tmp_path / "broken")
    return tmp_path / "broken"


@pytest.mark.parametrize("way", DAMAGES)
def test_a_damaged_video_sample_is_entered_and_packs_are_those_of_the_skip_list(
    healthy: Path, broken: Path, tmp_path: Path, way: str
) -> None:
    at = damage(broken / "video", v0006=way)["v0006"]
    ledger = tmp_path / "run" / "quarantine.jsonl"
    batches = take(loader(data_config(broken, ("video", "text")), ledger=ledger), 20)
    assert entered(ledger) == [("v0006", "bad", at)]
    assert keys(batches) == {f"video/v{i:04d}" for i in range(12) if i != 6} | {f"text/t{i:04d}" for i in range(12)}
    unharmed = loader(data_config(healthy, ("video", "text"), skip_samples=str(ledger)), ledger=tmp_path / "other.jsonl")
    assert all(same(a, b) for a, b in zip(batches, take(unharmed, 20), strict=True))
    assert not (tmp_path / "other.jsonl").exists()  # left out untried, so there is nothing to enter


@pytest.mark.parametrize("way", IMAGE_DAMAGES)
def test_a_damaged_image_sample_is_entered(broken: Path, tmp_path: Path, way: str) -> None:
    at = damage(broken / "image", i0002=way)["i0002"]
    batches = take(loader(data_config(broken, ("image",)), ledger=tmp_path / "q.jsonl"), 12)
    assert entered(tmp_path / "q.jsonl") == [("i0002", "bad", at)]
    assert keys(batches) == {f"image/i{i:04d}" for i in range(12) if i != 2}


@settings(max_examples=15, deadline=None)
@given(
    ways=st.dictionaries(st.integers(0, 11), st.sampled_from(sorted(DAMAGES)), max_size=8),
    more=st.dictionaries(st.integers(0, 11), st.sampled_from(sorted(TEXT_DAMAGES)), max_size=8),
    stop=st.integers(0, 12),
)
def test_any_damage_and_restart_give_the_packs_of_the_skip_list(
    healthy: Path, ways: dict[int, str], more: dict[int, str], stop: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(healthy, root / "broken")
        points = damage(root / "broken" / "video", **{f"v{i:04d}": way for i, way in ways.items()})
        points |= damage(root / "broken" / "text", **{f"t{i:04d}": way for i, way in more.items()})
        data = data_config(root / "broken", ("video", "text"))
        begun = loader(data, ledger=root / "q.jsonl")
        batches = take(begun, stop)
        resumed = loader(data, ledger=root / "q.jsonl")
        resumed.load_state_dict(begun.state_dict())
        batches += take(resumed, 20 - stop)
        (root / "q.jsonl").touch()
        assert entered(root / "q.jsonl") == sorted((key, "bad", at) for key, at in points.items())
        twin = loader(data_config(healthy, ("video", "text"), skip_samples=str(root / "q.jsonl")), ledger=root / "twin.jsonl")
        assert all(same(a, b) for a, b in zip(batches, take(twin, 20), strict=True))


def test_a_shard_that_is_cut_while_running_loses_what_lies_behind(broken: Path, tmp_path: Path) -> None:
    batches = loader(data_config(broken, ("video",)), ledger=tmp_path / "q.jsonl")
    truncate(broken / "video", "v0005")
    seen = keys(take(batches, 20))
    lost = {5, 6, 7}
    assert seen == {f"video/v{i:04d}" for i in range(12) if i not in lost}
    assert entered(tmp_path / "q.jsonl") == [(f"v{i:04d}", "bad", "read") for i in sorted(lost)]
    with pytest.raises(InputError, match=r"shard-000001\.tar has \d+ bytes instead of"):  # no run begins on it
        loader(data_config(broken, ("video",)))


def test_a_shard_that_is_gone_is_no_bad_sample(broken: Path, tmp_path: Path) -> None:
    batches = loader(data_config(broken, ("video",)), ledger=tmp_path / "q.jsonl")
    (broken / "video" / "shard-000001.tar").unlink()
    with pytest.raises(InputError, match=r"a shard cannot be read .*shard-000001\.tar"):
        take(batches, 20)
    assert not (tmp_path / "q.jsonl").exists()


def test_more_damage_in_a_row_than_energon_bears(tmp_path: Path) -> None:
    """Energon gives up after 100 failures; the ledger's budget alone decides."""
    write_samples(tmp_path / "text", [text_sample(i) for i in range(160)], samples_per_shard=160)
    damage(tmp_path / "text", **{f"t{i:04d}": "json" if i % 2 else "header" for i in range(10, 150)})
    data = data_config(tmp_path, ("text",), shuffle_buffer=0, max_bad_samples=140)
    seen = keys(take(loader(data, ledger=tmp_path / "q.jsonl"), 40))
    assert seen == {f"text/t{i:04d}" for i in (*range(10), *range(150, 160))}
    assert len(entered(tmp_path / "q.jsonl")) == 140


def test_every_dataset_has_its_own_budget(broken: Path, tmp_path: Path) -> None:
    damage(broken / "video", v0001="no_frames", v0002="no_frames")
    damage(broken / "text", t0001="json", t0002="json")
    data = data_config(broken, ("video", "text"), max_bad_samples=0)
    data.datasets = [
        DatasetConfig(name="video", path="video", modality="video", max_bad_samples=2),
        DatasetConfig(name="text", path="text", modality="text", max_bad_samples=1),
    ]
    ledger = tmp_path / "q.jsonl"
    with pytest.raises(InputError) as stopped:
        take(loader(data, ledger=ledger), 20)
    message = str(stopped.value)
    assert "dataset text: 2 samples could not be read, more than its max_bad_samples = 1" in message
    assert "the latest is text/t000" in message and "shard-000000.tar" in message and str(ledger) in message
    with pytest.raises(InputError, match=r"dataset text: 2 samples"):  # met again, it stops again
        take(loader(data, ledger=ledger), 20)
    data.datasets[1].max_bad_samples = None
    data.max_bad_samples = 2
    assert len(take(loader(data, ledger=ledger), 20)) == 20
    assert [e for e in entered(ledger) if e[1] == "bad"] == [(k, "bad", at) for k, at in _four()]


def _four() -> list[tuple[str, str]]:
    return [("t0001", "read"), ("t0002", "read"), ("v0001", "decode"), ("v0002", "decode")]


@pytest.mark.parametrize("way", ["json", "too_fast", "no_frames"])
def test_data_of_which_nothing_is_whole_end_with_the_reason(broken: Path, tmp_path: Path, way: str) -> None:
    damage(broken / "video", **{f"v{i:04d}": way for i in range(12)})
    batches = loader(data_config(broken, ("video", "text"), max_bad_samples=100), ledger=tmp_path / "q.jsonl")
    with pytest.raises(InputError, match=r"dataset video: no sample of the data can be used; the latest is video/v00"):
        take(batches, 500)
    assert len([e for e in entered(tmp_path / "q.jsonl") if e[1] == "bad"]) == 12


@pytest.mark.parametrize("stop", [3, 8])
def test_a_resumed_run_enters_nothing_twice_and_goes_on_exactly(broken: Path, tmp_path: Path, stop: int) -> None:
    damage(broken / "video", v0001="header", v0006="too_fast", v0009="no_frames")
    data = data_config(broken, ("video", "text"))
    whole = take(loader(data, ledger=tmp_path / "whole.jsonl"), 20)
    begun = loader(data, ledger=tmp_path / "q.jsonl")
    take(begun, stop)
    state = begun.state_dict()
    take(begun, 4)  # steps that are lost
    resumed = loader(data, ledger=tmp_path / "q.jsonl")
    resumed.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(whole[stop:], take(resumed, 20 - stop), strict=True))
    assert entered(tmp_path / "q.jsonl") == entered(tmp_path / "whole.jsonl")


@pytest.mark.parametrize("at", ["read", "plan", "decode"])
def test_a_buffered_sample_can_be_left_out_when_resuming(healthy: Path, tmp_path: Path, at: str) -> None:
    """Say, the one that no decoder returned from: it lies in a buffer of the saved place."""
    data = data_config(healthy, ("video", "text"))
    begun = loader(data, ledger=tmp_path / "q.jsonl")
    take(begun, 2)
    state = begun.state_dict()
    skip = tmp_path / "skip.jsonl"
    skip.write_text("".join(json.dumps({"dataset": "video", "key": f"v{i:04d}", "at": at}) + "\n" for i in range(12) if i % 3))
    resumed = loader(data_config(healthy, ("video", "text"), skip_samples=str(skip)), ledger=tmp_path / "q.jsonl")
    resumed.load_state_dict(state)
    seen = keys(take(resumed, 20))
    assert {k for k in seen if k.startswith("video")} == {f"video/v{i:04d}" for i in (0, 3, 6, 9)}


def test_held_out_samples_keep_the_same_rules(healthy: Path, broken: Path, tmp_path: Path) -> None:
    damage(broken / "video", v0000="header", v0005="too_fast", v0009="no_frames")
    data = data_config(broken, ("video", "text"))
    ledger = tmp_path / "q.jsonl"
    ranks = [list(loader(data, ledger=ledger, split="validation", rank=r, world_size=2)) for r in range(2)]
    assert entered(ledger) == [("v0000", "bad", "read"), ("v0005", "bad", "plan"), ("v0009", "bad", "decode")]
    assert len(ranks[0]) == len(ranks[1])
    assert keys(ranks[0] + ranks[1]) == {f"video/v{i:04d}" for i in range(12) if i not in (0, 5, 9)} | {
        f"text/t{i:04d}" for i in range(12)
    }
    skipping = data_config(healthy, ("video", "text"), skip_samples=str(ledger))
    for rank in range(2):
        twin = list(loader(skipping, split="validation", rank=rank, world_size=2))
        assert all(same(a, b) for a, b in zip(ranks[rank], twin, strict=True))


@pytest.mark.parametrize("processes", [0, None])
def test_a_ledger_that_cannot_be_written_ends_the_run(broken: Path, tmp_path: Path, processes: int | None) -> None:
    """/dev/full refuses every write as a full disk does."""
    damage(broken / "video", v0006="no_frames")
    (tmp_path / "q.jsonl").symlink_to("/dev/full")
    batches = loader(data_config(broken, ("video",), worker_processes=processes), ledger=tmp_path / "q.jsonl")
    with pytest.raises(InputError, match=r"q\.jsonl cannot be written \(No space left on device\).*video/v0006 in shard-000001"):
        take(batches, 20)
    batches.close()


def _stopped_in_a_sample(batches: Any, pid: int) -> CurrentSample:
    """Stop a reading process while it has a sample in hand."""
    for _ in range(5000):
        next(batches)  # so that it has work
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            pass
        if (busy := current_sample(pid)) is not None:
            return busy
        os.kill(pid, signal.SIGCONT)
    raise AssertionError("the process never had a sample in hand")


@pytest.mark.parametrize("end", ["hangs", "is killed"])
def test_a_sample_that_ends_or_stops_its_process_is_named(healthy: Path, tmp_path: Path, end: str) -> None:
    data = data_config(healthy, ("video",), worker_processes=1, prefetch=1, worker_timeout_seconds=1)
    batches = loader(data, ledger=tmp_path / "q.jsonl")
    next(batches)
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    busy = _stopped_in_a_sample(batches, process.pid)
    if end == "is killed":
        process.kill()
    with pytest.raises(InputError) as stopped:
        take(batches, 5)  # at first those read ahead
    batches.close()
    message = str(stopped.value)
    assert ("gave no micro-batch for 1 seconds" if end == "hangs" else "was killed by SIGKILL") in message
    assert f"it was busy with {busy}" in message and busy.skip_line() in message
    (tmp_path / "skip.jsonl").write_text(busy.skip_line())
    skipping = data_config(healthy, ("video",), skip_samples=str(tmp_path / "skip.jsonl"))
    assert keys(take(loader(skipping), 20)) == {f"video/v{i:04d}" for i in range(12)} - {f"video/{busy.key}"}
