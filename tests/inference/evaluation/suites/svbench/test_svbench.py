"""SVBench: means worked out by hand, what judges may reply, and the way from the release to both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.suite import Imported, ImportOptions
from inference.evaluation.suites.svbench import SUITE
from inference.evaluation.suites.svbench.scorer import read_criteria, read_single
from model.errors import InputError
from tests.inference.clips import write_clip


class _Equal:
    """10 where answer and truth are the same, else 0; of dialogues the mean of these; time plays a part where "when" is asked."""

    name = "equal"

    def __init__(self) -> None:
        self.asked: list[JudgeRequest[Any]] = []

    def ask(self, requests: Sequence[JudgeRequest[Any]]) -> list[Any]:
        self.asked += requests
        return [request.read(self._verdict(request.messages[0]["content"])) for request in requests]

    def _verdict(self, text: str) -> str:
        truths = [line.removeprefix("True answer: ") for line in text.split("\n") if line.startswith("True answer: ")]
        replies = [line.removeprefix("Answer: ") for line in text.split("\n") if line.startswith("Answer: ")]
        assert len(truths) == len(replies)
        mean = 10 * sum(a == b for a, b in zip(truths, replies, strict=True)) // len(truths)
        if "Reply with the number alone" in text:
            return f"{mean}"
        return "\n".join(f"{name}: {mean}" for name in ("SA", "CC", "LC", "IC", "OS")) + f"\nTU: {mean if 'When' in text else -1}"


CHAINS = [
    {
        "images": [],
        "chain": {"questions": ["Who?", "When?"], "answers": ["Ann", "at noon"]},
        "qac_timestamps_start": 0.0,
        "qac_timestamps_end": 2.5,
    },
    {},
    {
        "images": [],
        "chain": {"questions": ["What?", "Why?"], "answers": ["tea", "thirst"]},
        "qac_timestamps_start": 3.0,
        "qac_timestamps_end": 5.0,
    },
]
LINKS = [
    {
        "chain_1": {"qac_timestamps_start": 0.0},
        "chain_2": {"qac_timestamps_start": 3.0},
        "relationship": {"chainBefore": [0], "chainAfter": [1, 0], "relationship": "the same person"},
    }
]


def _load(root: Path, chains: Any, links: Any = None, **options: Any) -> Imported:
    (root / "chains").mkdir(exist_ok=True)
    (root / "chains" / "vid.json").write_text(json.dumps(chains))
    if links is not None:
        (root / "linkages").mkdir(exist_ok=True)
        (root / "linkages" / "vid.json").write_text(json.dumps(links))
    assert SUITE.load is not None
    return SUITE.load(root, ImportOptions(videos=root / "videos", **options))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_clip(tmp_path / "videos" / "vid.mp4", [20] * 8)
    return tmp_path


def _imported(root: Path) -> Scenario:
    (scenario,) = _load(root, CHAINS, LINKS).scenarios
    return scenario


def test_chains_become_dialogues(root: Path, tmp_path: Path) -> None:
    scenario = _imported(root)
    assert scenario.id == "vid" and scenario.video == "vid.mp4" and scenario.num_frames == 6  # 0 to 5 s
    assert [(q.text, q.t, q.after, q.meta["scene"]) for q in scenario.questions] == [
        ("Who?", 2.5, [], 0),
        ("When?", 2.5, [0], 0),
        ("What?", 5.0, [], 2),
        ("Why?", 5.0, [2], 2),
    ]
    assert scenario.meta["path"] == [{"before": [0], "after": [3, 2], "relation": "the same person"}]
    save_scenarios(tmp_path / "s.jsonl", [scenario])
    assert load_scenarios(tmp_path / "s.jsonl") == [scenario]
    assert _load(root, CHAINS, context_seconds=1.0).scenarios[0].questions[0].since == 1.5


def test_means_by_hand(root: Path) -> None:
    scenario, judge = _imported(root), _Equal()
    trace = Trace(scenario_id="vid", mode="offline", answers=["Ann", "at night", "tea", "thirst"])
    metrics = SUITE.aggregate(SUITE.score([(trace, scenario)], judge))
    # Right: 1, 0, 1, 1. Chains: 5 and 10. Linked: questions 0, 3 and 2, all right.
    assert metrics["single.accuracy"] == 7.5 and metrics["chain.SA"] == 7.5 == metrics["chain.OS"]
    assert metrics["streaming.SA"] == 10.0
    # Time plays a part in the first chain alone, and in none of the linked questions.
    assert metrics["chain.TU"] == 5.0 and "streaming.TU" not in metrics
    assert len(judge.asked) == 4 + 2 + 1 and "hang together: the same person" in judge.asked[-1].messages[0]["content"]
    assert SUITE.score([(trace, scenario)], None) == []


def test_verdicts() -> None:
    assert read_single("8") == {"accuracy": 8} and read_single("Score: 10/10") == {"accuracy": 10}
    lines = "SA: 7\nCC: 6\n**LC**: 5\nTU: -1\nIC - 4\nOS: 10"
    with pytest.raises(ValueError, match="of IC"):
        read_criteria(lines)
    assert read_criteria(lines.replace("IC - 4", "IC: 4")) == {"SA": 7, "CC": 6, "LC": 5, "TU": -1, "IC": 4, "OS": 10}
    for wrong in ("", "good", "11", "-1", "7.5"):
        with pytest.raises(ValueError, match="from 0 to 10 is wanted"):
            read_single(wrong)


@pytest.mark.parametrize(
    ("chains", "links", "message"),
    [
        ([{"chain": {"questions": ["a"], "answers": []}}], None, "has 1 questions and 0 answers"),
        ([{"qac_timestamps_end": 1.0}], None, "has no field chain"),
        ([{}], None, "has no scene with a chain"),
        (CHAINS, [{**LINKS[0], "relationship": {"chainBefore": [7], "chainAfter": []}}], r"chainBefore is \[7\]"),
    ],
)
def test_what_is_wrong_is_named(root: Path, chains: Any, links: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _load(root, chains, links)
