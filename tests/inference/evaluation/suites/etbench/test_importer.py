"""E.T. Bench's annotations become questions about whole videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.etbench import SUITE
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip

COMMON = {"version": 1.0, "idx": 3, "source": "qvh", "video": "qvh/a.mp4", "duration": 6.0, "q": "When? Answer in seconds."}
TVG = {**COMMON, "task": "tvg", "tgt": [1.2, 3.5]}
VHD = {**COMMON, "task": "vhd", "tgt": [[[1, 2], [3, 4]], [[1, 3]]]}
RVQ = {**COMMON, "task": "rvq", "p": 1, "o": ["a", [2.0, 4.0], "c", "d"]}
DVC = {**COMMON, "task": "dvc", "tgt": [[1, 2]], "g": ["a cat"]}


def _load(root: Path, entries: list[dict[str, Any]]) -> Imported:
    (root / "et.json").write_text(json.dumps(entries))
    assert SUITE.load is not None
    return SUITE.load(root / "et.json", ImportOptions(videos=root))


def test_samples_of_one_video_make_one_scenario(tmp_path: Path) -> None:
    write_clip(tmp_path / "qvh" / "a.mp4", [20] * 6)
    found = _load(tmp_path, [TVG, VHD, RVQ, DVC])
    (scenario,) = found.scenarios
    tvg, vhd, rvq, dvc = scenario.questions
    assert scenario.num_frames == 6 and tvg.t is None and tvg.text == COMMON["q"]
    assert tvg.meta == {"source": "qvh", "idx": 3, "truth": [[1.2, 3.5]]} and tvg.answer == "1.2 - 3.5"
    assert vhd.meta["truth"] == [[1.0, 2.0], [3.0, 4.0], [1.0, 3.0]]
    assert (rvq.answer, rvq.choices) == ("B", ["a", "2.0 - 4.0", "c", "d"])
    assert dvc.meta == {"source": "qvh", "idx": 3, "truth": [[1.0, 2.0]], "captions": ["a cat"]} and dvc.answer == "1 - 2: a cat"
    save_scenarios(tmp_path / "s.jsonl", found.scenarios)
    assert load_scenarios(tmp_path / "s.jsonl") == found.scenarios


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**TVG, "task": "xyz"}, "task is 'xyz'"),
        ({**TVG, "tgt": []}, "must be spans of a beginning and an end"),
        ({**TVG, "tgt": ["x"]}, "must be spans of a beginning and an end"),
        ({**TVG, "q": "at <vid>?"}, "give the annotations with times as text"),
        ({**DVC, "g": ["a", "b"]}, "g has 2 captions for 1 spans of tgt"),
        ({**RVQ, "p": 4}, "p is 4 of 4 options"),
        ({**TVG, "video": "none.mp4"}, "none of the 1 videos was found"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    write_clip(tmp_path / "qvh" / "a.mp4", [20] * 6)
    with pytest.raises(InputError, match=message):
        _load(tmp_path, [entry])
