"""Single micro-batches read again are those of the run, although what lies before them is not decoded."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.loader import build_loader
from data_pipeline.loader.again import DataAgain
from data_pipeline.loader.ledger_lines import parse_lines
from data_pipeline.loader.readers import Reader
from data_pipeline.loader.state import merge_states
from data_pipeline.shards import write_samples
from model.errors import InputError
from moss_train.config.schema import DataConfig
from tests.data_pipeline.helpers import data_config, stage_config, text_sample, video_sample
from tests.data_pipeline.loader.damage import damage
from tests.data_pipeline.loader.elastic import MODEL, TOKENIZER, digest

STAGE = stage_config(realtime_jitter_prob=0.5, sequence_length=64, max_frames_per_pack=6)
COUNT, SAVED_AT, READERS = 30, 12, 4


class Recorded:
    """What a run read of data in which some videos cannot be decoded, and some samples not be read."""

    def __init__(self, root: Path) -> None:
        write_samples(root / "video", [video_sample(i) for i in range(16)], samples_per_shard=8)
        write_samples(root / "text", [text_sample(i) for i in range(16)], samples_per_shard=8)
        damage(root / "video", v0003="half_decoded", v0010="half_decoded", v0007="json")
        self.root, self.ledger = root, root / "quarantine.jsonl"
        loader = build_loader(self.data(), STAGE, MODEL, TOKENIZER, ledger=self.ledger)
        self.seen = [digest(next(loader)) for _ in range(SAVED_AT)]
        self.state = merge_states([pickle.loads(pickle.dumps(loader.state_dict()))])
        self.seen += [digest(next(loader)) for _ in range(COUNT - SAVED_AT)]

    def data(self, **changes: Any) -> DataConfig:
        return data_config(self.root, ("video", "text"), global_data_workers=READERS, samples_per_pack=1, **changes)

    def again(self, state: Any = None, left_out: bool = True, **changes: Any) -> DataAgain:
        entries = parse_lines(self.ledger.read_bytes()) if left_out else []
        scratch = self.root / "scratch.jsonl"
        return DataAgain(self.data(**changes), STAGE, MODEL, TOKENIZER, left_out=entries, ledger=scratch, state=state)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded"))


def test_the_run_left_samples_out_at_both_points(recorded: Recorded) -> None:
    """Or the tests below would say nothing about them."""
    found = {(e["key"], e["at"]) for e in parse_lines(recorded.ledger.read_bytes())}
    assert {("v0003", "decode"), ("v0007", "read")} <= found


@given(numbers=st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=4), resumed=st.booleans())
def test_any_micro_batches_are_those_of_the_run(recorded: Recorded, numbers: set[int], resumed: bool) -> None:
    wanted = sorted(n for n in numbers if not resumed or n >= SAVED_AT)
    again = recorded.again(recorded.state if resumed else None)
    assert [digest(again.take(n)) for n in wanted] == [recorded.seen[n] for n in wanted]


def test_without_the_ledger_packs_of_undecodable_samples_would_be_counted(recorded: Recorded) -> None:
    """A pack that was left out whole has no number; the ledger alone knows of it."""
    differing = [n for n in range(COUNT) if digest(recorded.again(left_out=False).take(n)) != recorded.seen[n]]
    assert differing and differing[0] > 0


def test_only_what_is_asked_for_is_decoded(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only its reader moves on."""
    decoded, passed = [], []
    real = Reader.__next__

    def counted(reader: Reader) -> Any:
        found = real(reader)
        (decoded if hasattr(found, "frames") else passed).append(reader.number)
        return found

    monkeypatch.setattr(Reader, "__next__", counted)
    reports: list[int] = []
    recorded.again().take(21, lambda: reports.append(1))
    assert decoded == [21 % READERS] and passed == [21 % READERS] * (21 // READERS) == passed[: len(reports)]


def test_data_that_are_read_in_another_way_are_refused(recorded: Recorded) -> None:
    with pytest.raises(InputError, match=r"made with data\.seed = 42, now it is 7"):
        recorded.again(recorded.state, seed=7)


def test_the_end_of_the_data_is_said(recorded: Recorded) -> None:
    data = recorded.data()
    for dataset in data.datasets:
        dataset.repeats = 1
    again = DataAgain(data, STAGE, MODEL, TOKENIZER, left_out=[], ledger=recorded.root / "scratch.jsonl")
    with pytest.raises(InputError, match=r"end before micro-batch 400: reader 0 of 4 gives [1-9]"):
        again.take(400)
