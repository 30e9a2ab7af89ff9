"""The released file of OVO-Bench becomes clips with questions, and streams."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.ovobench import SUITE
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip
from tests.inference.evaluation.suites.ovobench.entries import ENTRIES


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ovo")
    clip = write_clip(root / "Ego4D" / "a.mp4", [20] * 10)
    (root / "COIN").mkdir()
    (root / "COIN" / "b.mp4").write_bytes(clip.read_bytes())
    return root


def _load(tmp_path: Path, entries: Any, videos: Path, **options: Any) -> Imported:
    (tmp_path / "ovo.json").write_text(json.dumps(entries))
    assert SUITE.load is not None
    return SUITE.load(tmp_path / "ovo.json", ImportOptions(videos=videos, **options))


def test_clips_and_streams(videos: Path, tmp_path: Path) -> None:
    found = _load(tmp_path, ENTRIES, videos)
    a, b, rec, ssr, crr = found.scenarios
    assert [(q.kind, q.t, q.answer, q.since) for q in a.questions] == [("EPM", 3.0, "B", None), ("OCR", 7.2, "B", None)]
    assert "A. red; B. blue; C. green;" in a.questions[0].text and a.questions[0].choices == ["red", "blue", "green"]
    assert a.num_frames == 8  # 0 to 7 s
    assert [(q.kind, q.t, q.answer) for q in b.questions] == [
        ("REC", 2.0, "1"),
        ("REC", 4.5, "1"),
        ("REC", 8.0, "2"),
        ("SSR", 1.0, "No"),
        ("SSR", 3.0, "Yes"),
        ("SSR", 7.0, "Yes"),
        ("CRR", 2.0, "No"),
        ("CRR", 5.0, "No"),
        ("CRR", 7.0, "Yes"),
        ("CRR", 9.0, "Yes"),
    ]
    assert "do this: clapping?" in b.questions[0].text and "is: pour it." in b.questions[5].text
    assert b.num_frames == 10 and not b.prompts
    assert (rec.id, rec.num_frames, rec.meta["tests"]) == ("COIN/b#REC2", 9, [[2.0, 1], [4.5, 1], [8.0, 2]])
    assert [(s.a, s.text, s.kind) for s in rec.spans] == [(2.0, "1", "count"), (6.0, "2", "count")]
    assert "A. boil water\nB. pour it" in ssr.prompts[0].text and ssr.meta["begins"] == [2.0, 6.0]
    assert crr.prompts[0].t == 2.0 and crr.meta["clue"] == 6.0 and crr.spans[0].text == "Water."
    assert found.manifest.missing_videos == ["Ego4D/gone.mp4"] and found.manifest.license == "CC BY-NC-SA 4.0"
    save_scenarios(tmp_path / "s.jsonl", found.scenarios)
    assert load_scenarios(tmp_path / "s.jsonl") == found.scenarios


def test_context_and_limit(videos: Path, tmp_path: Path) -> None:
    found = _load(tmp_path, ENTRIES, videos, context_seconds=4.0, limit=2, fps=0.5)
    (a,) = found.scenarios
    assert [question.since for question in a.questions] == [None, pytest.approx(3.2)] and a.num_frames == 4  # 0, 2, 4, 6 s


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda e: e.update(task="XYZ"), "task is 'XYZ'; it must be one of EPM"),
        (0, lambda e: e.update(gt=3), "gt is 3 of 3 options"),
        (0, lambda e: e.pop("options"), "entry 0 has no field options"),
        (0, lambda e: e.update(realtime=-1), "realtime is -1.0; it must be 0 or more"),
        (2, lambda e: e.update(test_info=[]), "test_info is empty"),
        (2, lambda e: e["test_info"][0].pop("count"), "test_info 0 has no field count"),
        (3, lambda e: e.update(start_time=[1]), "2 steps and 1 beginnings"),
        (4, lambda e: e["test_info"][0].update(type=2), "type is 2; it must be 0"),
    ],
)
def test_what_is_wrong_is_named(
    videos: Path, tmp_path: Path, place: int, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    entries = copy.deepcopy(ENTRIES)
    change(entries[place])
    with pytest.raises(InputError, match=message):
        _load(tmp_path, entries, videos)
