"""Every row of the reference's three demo files, from import to shards to rows of tokens, against the rules of its format.

The expectations are built here from the file's own texts, not by the code under test.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.packing.plan import PlanRules, SamplePlan, plan_sample
from data_pipeline.schema import Sample
from data_pipeline.shards.annotations import write_annotations
from data_pipeline.shards.info import read_samples
from data_pipeline.shards.prepare import prepare
from tests.data_pipeline.formats.helpers import import_file
from tests.data_pipeline.helpers import make_video, tokenizer

T = tokenizer()
SYSTEM_SHA256 = ("4fa69862", "2327")
"""First and last digits of the digest of the system text of every real-time row."""


@dataclass
class Row:
    """One row as it is in the file, and as it is stored."""

    raw: dict[str, Any]
    sample: Sample
    sampled: int
    """Frames that the sampling rule gives, by the recorded table or the markers' times."""


@pytest.fixture(scope="module")
def rows(reference_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """All rows; a clip that is not there is generated, as long as its markers ask for."""
    root = tmp_path_factory.mktemp("reference")
    realtime = json.loads((reference_data / "mllm_realtime_sft_demo.json").read_text())
    for name, seconds in {descriptor(r)["video_path"]: len(descriptor(r)["time_info"]) for r in realtime}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(make_video([20 + i % 60 for i in range(2 * seconds)], rate=2, width=32, height=32))
    out = []
    for name, folder in (
        ("mllm_pretrain_demo", reference_data),
        ("mllm_offline_sft_demo", reference_data),
        ("mllm_realtime_sft_demo", root),
    ):
        raw = json.loads((reference_data / f"{name}.json").read_text())
        template = "mllama_pretrain" if "pretrain" in name else "mllama"
        kept, report = import_file(reference_data / f"{name}.json", media_root=folder, template=template)
        assert not report.dropped, report.examples
        write_annotations(root / f"{name}.jsonl", kept)
        prepare(root / f"{name}.jsonl", root / name)
        stored = [sample for _, sample in read_samples(root / name)]
        out += [Row(r, s, frames_of(r)) for r, s in zip(raw, stored, strict=True)]
    return out


def descriptor(raw: dict[str, Any]) -> dict[str, Any]:
    """The description of a real-time row's clip, behind the literal prefix."""
    prefix = "[RealTime QA][INFO]"
    assert raw["videos"][0].startswith(prefix)
    parsed: dict[str, Any] = json.loads(raw["videos"][0][len(prefix) :])
    return parsed


def is_realtime(raw: dict[str, Any]) -> bool:
    return bool(raw.get("videos")) and raw["videos"][0].startswith("[RealTime QA]")


def frames_of(raw: dict[str, Any]) -> int:
    if is_realtime(raw):
        return len(raw["videos"])
    sampled = {"1.mp4": 10, "2.avi": 10, "3.mp4": 8}  # at one frame a second and eight at least
    return len(raw.get("images") or []) + sum(sampled[v.rsplit("/", 1)[-1]] for v in raw.get("videos") or [])


def rules(**values: Any) -> PlanRules:
    fields: dict[str, Any] = {
        "template": None,
        "sequence_length": 32768,
        "max_frames": 256,
        "fps": 1.0,
        "video_min_frames": 8,
        "video_max_frames": 256,
        "jitter": 0.0,
        "label_eot_realtime": False,
    }
    return PlanRules(**{**fields, **values})


def plan(row: Row, **values: Any) -> SamplePlan:
    return plan_sample(row.sample, T, rules(**values), random.Random(7))


def halves(raw: dict[str, Any], pretrain: bool) -> list[list[int]]:
    """Ids of source and target of every turn in order, markers unexpanded."""
    parts: list[list[int]] = [[T.bos_id]]
    for message in raw["messages"]:
        text, role = message["content"], message["role"]
        if role == "assistant":
            parts += [T.encode(text) + [T.eos_text_id if pretrain else T.eot_id], []]
        elif pretrain:
            parts[-1] += T.encode(text)
        else:
            parts[-1] += T.encode(_header(role) + text + "<|eot_id|>" + (_header("assistant") if role == "user" else ""))
    return parts[:-1]


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def expected(row: Row, parts: list[list[int]]) -> tuple[list[int], list[int]]:
    """Expanded ids and labels by the rules of the format."""
    fill = 1 if is_realtime(row.raw) or row.raw.get("images") else row.sampled
    ids, labels = [], []
    for number, part in enumerate(parts):
        for token in part:
            if token in (T.video_id, T.image_id):
                ids += [T.image_id] * fill
                labels += [IGNORE_INDEX] * fill
                continue
            hidden = number % 2 == 0 or (is_realtime(row.raw) and token == T.eot_id)
            ids.append(token)
            labels.append(IGNORE_INDEX if hidden else token)
    return ids, labels


def test_every_row_is_stored_with_its_text_and_as_many_markers_as_frames(rows: list[Row]) -> None:
    assert len(rows) == 4 + 39 + 100
    for row in rows:
        assert [(m.role, m.content) for m in row.sample.messages] == [(m["role"], m["content"]) for m in row.raw["messages"]]
        markers = "".join(m["content"] for m in row.raw["messages"]).count("<|video|>")
        assert markers == len(row.raw.get("videos") or [])
        if is_realtime(row.raw):
            assert row.sample.kind == "realtime" and row.sample.media[0].frame_times == list(range(markers))
            assert descriptor(row.raw)["time_info"] == [f"{s // 60:02}:{s % 60:02}" for s in range(markers)]
            digest = hashlib.sha256(row.sample.messages[0].content.encode()).hexdigest()
            assert digest.startswith(SYSTEM_SHA256[0]) and digest.endswith(SYSTEM_SHA256[1])


def test_tokens_labels_frames_and_what_a_row_sees(rows: list[Row]) -> None:
    for row in rows:
        made = plan(row)
        parts = halves(row.raw, row.sample.template == "mllama_pretrain")
        ids, labels = expected(row, parts)
        assert made.rows.input_ids.tolist() == ids and made.rows.labels.tolist() == labels
        markers = sum(t in (T.video_id, T.image_id) for part in parts for t in part)
        assert made.num_rows == sum(map(len, parts)) + row.sampled - markers
        assert made.num_frames == row.sampled == (made.rows.input_ids == T.image_id).sum()
        assert made.rows.visible_frames.tolist() == np.cumsum(made.rows.input_ids == T.image_id).tolist()
        assert made.rows.frame_rows.tolist() == np.flatnonzero(made.rows.input_ids == T.image_id).tolist()
        if is_realtime(row.raw):
            assert [s.frame for s in made.slots] == [2 * i for i in range(row.sampled)]
            assert T.eot_id not in made.rows.targets


def test_markers_move_where_the_rule_lets_them(rows: list[Row]) -> None:
    moved_markers = 0
    for row in rows:
        still, moved = plan(row).rows.input_ids.tolist(), plan(row, jitter=1.0).rows.input_ids.tolist()
        if not is_realtime(row.raw):
            assert moved == still
            continue
        assert [t for t in moved if t != T.image_id] == [t for t in still if t != T.image_id]
        old = [i for i, t in enumerate(still) if t == T.image_id]
        new = [i for i, t in enumerate(moved) if t == T.image_id]
        for a, b in zip(old, new, strict=True):
            may = still[a - 1] != T.silence_id and moved[a - 2] not in (T.end_header_id, T.image_id)
            assert b == a - may
            moved_markers += may
    assert moved_markers > 100


@pytest.mark.parametrize("cutoff", [700, 1200])
def test_truncation_as_the_reference_cuts(rows: list[Row], cutoff: int) -> None:
    """Against the rule as it is written: turn by turn, every marker one token."""
    cut_rows = 0
    for row in rows:
        made = plan(row, truncation="reference", sequence_length=cutoff + 256)
        parts = halves(row.raw, row.sample.template == "mllama_pretrain")
        kept: list[list[int]] = []
        for source, target in zip(parts[::2], parts[1::2], strict=True):
            budget = cutoff - sum(map(len, kept))
            if budget > 0:
                answer = _answer_length(len(source), len(target), budget)
                kept += [source[: max(budget - answer, 0)], target[:answer]]
        ids, labels = expected(row, kept)
        assert made.rows.input_ids.tolist() == ids and made.rows.labels.tolist() == labels
        assert sum(map(len, kept)) == min(cutoff, sum(map(len, parts)))
        assert made.num_rows <= cutoff + made.num_frames and len(made.slots) == ids.count(T.image_id)
        cut_rows += kept != parts
        shorter = plan(row, sequence_length=cutoff)  # the other rule counts frames and fits the same bound
        assert shorter.num_rows == min(cutoff, sum(map(len, parts)) + row.sampled - sum(map(len, row_markers(parts))))
    assert cut_rows > 30


def _answer_length(source: int, target: int, budget: int) -> int:
    """A short answer is whole; beside a short question it gets what is left; else both shrink alike."""
    if 2 * target < budget:
        return target
    if 2 * source < budget:
        return min(target, budget - source)
    return min(target, int(budget * (target / (source + target))))


def row_markers(parts: list[list[int]]) -> list[list[int]]:
    return [[t for t in part if t in (T.video_id, T.image_id)] for part in parts]
