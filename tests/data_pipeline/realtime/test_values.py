"""Rows: JSON both ways, and strict about what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.values import dialogue_from_dict, dialogue_to_dict, read_dialogues, write_dialogues
from model.errors import InputError
from tests.data_pipeline.realtime.dialogues import raw_dialogue, sound_dialogue

NUMBERS = st.floats(0, 100, allow_nan=False)
TEXT = st.text(max_size=8)
PAIRS = st.tuples(NUMBERS, NUMBERS)
USERS = st.builds(UserTurn, t=NUMBERS, text=TEXT, behaviour=TEXT)
UTTERANCES = st.builds(
    Utterance,
    t=NUMBERS,
    text=TEXT,
    evidence=PAIRS,
    answers=st.none() | st.integers(0, 3),
    corrects=st.none() | st.integers(0, 3),
    tolerance=NUMBERS,
    kind=TEXT,
    replaces_running=st.booleans(),
    span=st.none() | PAIRS,
    said=st.none() | TEXT,
    preempted=st.booleans(),
)
DIALOGUES = st.builds(
    Dialogue,
    id=TEXT,
    frame_times=st.lists(NUMBERS, max_size=4).map(tuple),
    fps=st.floats(0.1, 60),
    users=st.lists(USERS, max_size=3).map(tuple),
    utterances=st.lists(UTTERANCES, max_size=3).map(tuple),
    emission_tps=st.none() | st.floats(0.1, 100),
    behaviours=st.lists(TEXT, max_size=2).map(tuple),
    language=TEXT,
    system=TEXT,
    video=TEXT,
    source=TEXT,
    license=TEXT,
    split_key=TEXT,
    timeline=TEXT,
    generator=st.dictionaries(TEXT, NUMBERS, max_size=2),
    quality=st.dictionaries(TEXT, TEXT, max_size=2),
    meta=st.dictionaries(TEXT, st.booleans(), max_size=2),
)


@given(DIALOGUES)
def test_any_dialogue_comes_back_from_json(dialogue: Dialogue) -> None:
    text = json.dumps(dialogue_to_dict(dialogue), ensure_ascii=False)
    assert dialogue_from_dict(json.loads(text)) == dialogue


@pytest.mark.parametrize("seed", range(20))
def test_turns_stand_in_order_of_time(seed: int) -> None:
    row = dialogue_to_dict(sound_dialogue(seed))
    times = [turn["t"] for turn in row["turns"]]
    assert times == sorted(times) and {turn["role"] for turn in row["turns"]} <= {"user", "assistant"}


def test_files_of_rows(tmp_path: Path) -> None:
    made = [raw_dialogue(0), sound_dialogue(1)]
    assert write_dialogues(tmp_path / "a" / "rows.jsonl", made) == 2
    assert list(read_dialogues(tmp_path / "a" / "rows.jsonl")) == made
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["rows.jsonl"]
    with (tmp_path / "a" / "rows.jsonl").open("a") as out:
        out.write("\n{nonsense\n")
    with pytest.raises(InputError, match=r"rows.jsonl line 4 is not JSON"):
        list(read_dialogues(tmp_path / "a" / "rows.jsonl"))
    with pytest.raises(InputError, match="does not exist"):
        list(read_dialogues(tmp_path / "none.jsonl"))


def put(path: str, value: Any) -> Any:
    def change(row: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        target: Any = row
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target[name]
        if isinstance(target, list):
            target[int(last)] = value
        elif value is ...:
            del target[last]
        else:
            target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (put("id", 3), "field id is 3"),
        (put("fps", ...), "lacks the field fps"),
        (put("fps", "1"), "field fps is '1'"),
        (put("fps", 0), "field fps is 0"),
        (put("colour", 1), "unknown field 'colour'"),
        (put("source", {"path": "x"}), "unknown field 'path'"),
        (put("frame_timestamps", "0,1"), "frame_timestamps is"),
        (put("frame_timestamps", [0, True]), r"frame_timestamps\[1\] is True"),
        (put("frame_timestamps", [0, float("nan")]), r"frame_timestamps\[1\] is nan"),
        (put("turns", {}), "turns is"),
        (put("turns.0", "hello"), r"turns\[0\].role is None"),
        (put("turns.0.role", "system"), r"turns\[0\].role is 'system'"),
        (put("turns.0.t", None), r"turns\[0\].t is None"),
        (put("turns.0.text", ...), r"turns\[0\] lacks the field text"),
        (put("turns.0.evidence", [1]), r"turns\[0\].evidence is \[1\]"),
        (put("turns.0.answers", -1), r"turns\[0\].answers is -1"),
        (put("turns.0.preempted", 1), r"turns\[0\].preempted is 1"),
        (put("turns.0.mood", 1), r"turns\[0\] has the unknown field 'mood'"),
        (put("behaviours", "direct"), "behaviours is 'direct'"),
        (put("emission_tps", -2), "emission_tps is -2"),
        (put("gen", []), "field gen is"),
    ],
)
def test_wrong_fields_are_named(change: Any, text: str) -> None:
    row = dialogue_to_dict(Dialogue(id="d", frame_times=(0.0, 1.0), fps=1.0, utterances=(raw_dialogue(0).utterances[0],)))
    change(row)
    with pytest.raises(InputError, match=text) as told:
        dialogue_from_dict(row, "rows.jsonl line 7")
    assert str(told.value).startswith("rows.jsonl line 7 ")


@pytest.mark.parametrize("row", [None, [], "x", 3])
def test_what_is_no_object_is_told(row: Any) -> None:
    with pytest.raises(InputError, match="must be a JSON object"):
        dialogue_from_dict(row)
