"""Scenario and trace files: round trips, and errors that name line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.schema import PromptEvent, Question, Scenario, Span, Trace, TraceEvent
from inference.evaluation.storage import load_scenario_files, load_scenarios, load_traces, save_scenarios, save_traces
from model.errors import InputError

GOOD: dict[str, Any] = {"id": "a", "video": "a.mp4", "fps": 1, "num_frames": 4}


def _file(tmp_path: Path, *rows: dict[str, Any] | str) -> Path:
    path = tmp_path / "scenarios.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_scenarios_round_trip(tmp_path: Path) -> None:
    scenario = Scenario(
        id="a",
        video="v/a.mp4",
        fps=2.0,
        num_frames=6,
        prompts=[PromptEvent(t=0.5, text="count")],
        spans=[Span(a=1.0, b=1.5, text="two.", kind="count")],
        questions=[Question(text="Which colour?", answer="red", kind="colour", choices=["red", "blue"], t=2.0)],
        system="s",
        meta={"events": [1]},
    )
    save_scenarios(tmp_path / "x.jsonl", [scenario])
    assert load_scenarios(tmp_path / "x.jsonl") == [scenario]
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


def test_traces_round_trip_and_stay_small(tmp_path: Path) -> None:
    events = [TraceEvent(t=0.0, kind="frame_in", frame=0), TraceEvent(t=0.1, kind="token", frame=0, token=5, text="é")]
    traces = [
        Trace(scenario_id="a", mode="push", events=events, engine={"seed": 1}),
        Trace(scenario_id="a", mode="offline", answers=["x"]),
    ]
    save_traces(tmp_path / "t.jsonl", traces)
    assert load_traces(tmp_path / "t.jsonl") == traces
    first = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert first["events"][0] == {"t": 0.0, "kind": "frame_in", "frame": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": "fast"}, "line 2: fps is 'fast'; it must be a float"),
        ({"fps": True}, "fps is True"),
        ({"fps": 0}, "fps is 0.0; it must be above 0"),
        ({"num_frames": 1.5}, "num_frames is 1.5; it must be a int"),
        ({"spans": [{"a": 1.0, "b": 1.0, "prompt": 0}]}, r"spans\[0\].prompt is 0; the scenario has 0 prompts"),
        ({"meta": {"behaviours": "direct"}}, "meta.behaviours is 'direct'; it must be a list of names"),
        ({"speed": 1}, "field speed is not known"),
        ({"spans": [{"a": 1}]}, r"field spans\[0\].b is missing"),
        ({"spans": {"a": 1}}, "spans is .* it must be a list"),
        ({"spans": [{"a": 2, "b": 1}]}, r"spans\[0\] goes from 2.0 to 1.0"),
        ({"spans": [{"a": 4, "b": 4}]}, "the last frame is at 3 s"),
        ({"prompts": [{"t": -1, "text": "x"}]}, r"prompts\[0\].t is -1.0"),
        ({"questions": [{"text": "x", "answer": 3, "kind": "free"}]}, r"questions\[0\].answer is 3; it must be a str"),
        ({"id": "first"}, "'first' occurs twice"),
        ({"num_frames": 10**9}, "num_frames is 1000000000; give 1 to 1000000"),
        ({"num_frames": float("inf")}, "num_frames is inf; it must be a int"),
        ({"spans": [{"a": 0, "b": float("inf")}]}, r"spans\[0\] goes from 0.0 to inf"),
        ({"prompts": [{"t": float("inf"), "text": "x"}]}, r"prompts\[0\].t is inf"),
        ({"questions": [{"text": "x", "answer": "y", "kind": "all"}]}, r"questions\[0\].kind is 'all'"),
        (
            {"questions": [{"text": "x", "answer": "y", "kind": "k", "t": 1, "since": 2}]},
            r"questions\[0\].since is 2.0 and .t is 1.0",
        ),
        (
            {"questions": [{"text": "x", "answer": "y", "kind": "k", "after": [0]}]},
            r"questions\[0\].after is \[0\]; name questions",
        ),
        ({"frames": ["a.png"]}, "give one of the two"),
        ({"video": "", "frames": ["a.png"]}, "frames has 1 files and num_frames is 4"),
        ({"begin": -1}, "begin is -1.0; it must be 0 or more"),
        ({"changes": [{"t": float("inf")}]}, r"changes\[0\].t is inf"),
        ({"polls": [{"text": "now?", "begin": 2, "end": 1}]}, r"polls\[0\] asks from 2.0 to 1.0 every 1.0 s"),
        ({"polls": [{"text": "now?", "begin": 0, "end": 1, "prompt": 3}]}, r"polls\[0\].prompt is 3; the scenario has"),
    ],
)
def test_bad_fields_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_scenarios(_file(tmp_path, GOOD | {"id": "first"}, GOOD | change))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_scenarios(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="holds no scenario"):
        load_scenarios(_file(tmp_path, ""))
    with pytest.raises(InputError, match="line 2 is not JSON"):
        load_scenarios(_file(tmp_path, GOOD, "{oops"))
    missing = dict(GOOD)
    del missing["video"]
    with pytest.raises(InputError, match="line 1: video is '' and frames has 0 files; give one of the two"):
        load_scenarios(_file(tmp_path, missing))
    with pytest.raises(InputError, match="line 1: Scenario is 3; it must be an object"):
        load_scenarios(_file(tmp_path, "3"))


def test_bad_traces_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mode is 'watch'"):
        load_traces(_file(tmp_path, {"scenario_id": "a", "mode": "watch"}))
    with pytest.raises(InputError, match=r"events\[0\].kind is 'shout'"):
        load_traces(_file(tmp_path, {"scenario_id": "a", "mode": "push", "events": [{"t": 0, "kind": "shout"}]}))


def test_several_files_are_one_set_with_their_own_videos(tmp_path: Path) -> None:
    for folder, names in (("one", "ab"), ("two", "cd")):
        (tmp_path / folder).mkdir()
        _file(tmp_path / folder, *(GOOD | {"id": name} for name in names))
    paths = [tmp_path / folder / "scenarios.jsonl" for folder in ("one", "two")]
    found = load_scenario_files(paths, limit=1)
    assert [s.id for s in found] == ["a", "c"]
    assert [tmp_path / "one" / s.video for s in found] == [tmp_path / "one" / "a.mp4", tmp_path / "two" / "a.mp4"]
    _file(tmp_path / "two", GOOD | {"id": "b"})
    with pytest.raises(InputError, match=r"id 'b' occurs in .*one.* and in .*two"):
        load_scenario_files(paths)
    with pytest.raises(InputError, match="no scenario file"):
        load_scenario_files([])
