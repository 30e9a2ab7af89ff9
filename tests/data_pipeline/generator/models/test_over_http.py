"""The author that asks a model, over HTTP: recorded answers, sound and hostile in what they say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.generator.backends.cached import CachedBackend
from data_pipeline.generator.backends.open import open_backend
from data_pipeline.generator.backends.replay.recording import Entry, Recording
from data_pipeline.generator.backends.replay.server import ReplayServer
from data_pipeline.generator.models import ModelAuthor
from data_pipeline.generator.plan import Draft, Rejection
from data_pipeline.generator.stages.write import write_dialogue
from tests.data_pipeline.generator.models.scripted import SILENT, speak
from tests.data_pipeline.generator.models.test_model_author import CHANGES, question
from tests.data_pipeline.generator.samples import FRAMES, kitchen

CUTS = Entry(role="answer", contains=("It is 4 s now",), answer=speak("She is cutting it.", (4.0, 4.0), answers=0))
STOPS = Entry(
    role="answer",
    contains=("It is 9 s now",),
    answer=speak("Now she washes her hands.", (9.0, 9.0), action="correct", answers=0, corrects=0),
)
PLAN = Entry(role="plan", answer={"questions": [question(2.2, "What does she do with the tomato?", "later", "c1")]})
STYLE = Entry(role="style", answer={"lines": ["She is cutting it now.", "Now she is washing her hands."]})
JUDGE = Entry(role="judge", answer={"faithful": 4, "timely": 4, "complete": 4, "redundant": 2, "leak": False, "reason": "none"})
SOUND = [PLAN, CUTS, STOPS, Entry(role="answer", answer=SILENT), STYLE, JUDGE]


def backend(server: ReplayServer) -> Any:
    return open_backend({"base_url": server.url, "model": "recorded", "retries": 0, "timeout": 10.0})


def write(author: ModelAuthor) -> Draft | Rejection:
    return write_dialogue(kitchen(), author, FRAMES, 1.0, {"delayed": 1.0}, random.Random(0), "en", "a friend", CHANGES)


def test_a_dialogue_over_http_and_again_from_what_was_kept(tmp_path: Path) -> None:
    with ReplayServer(Recording(SOUND)) as server:
        author = ModelAuthor(CachedBackend(backend(server), tmp_path))
        draft = write(author)
        assert isinstance(draft, Draft), draft
        assert [(u.t, u.text, u.kind) for u in draft.utterances] == [
            (4.0, "She is cutting it now.", "answer"),
            (9.0, "Now she is washing her hands.", "correction"),
        ]
        judgement = author.judge(draft, kitchen())
        assert judgement is not None and judgement.score == 3.5
        calls = len(server.requests)
        # The plan, the decisions at 3, 4, 6, 9 and 12 s, the style and the judge.
        assert calls == 8
        assert write(ModelAuthor(CachedBackend(backend(server), tmp_path))) == draft
        assert len(server.requests) == calls, "the same dialogue asks nobody twice"


@pytest.mark.parametrize(
    ("entry", "stage", "reason"),
    [
        (
            Entry(role="plan", answer={"questions": [question(2.2, "What is there at 00:04?", "later", "c1")]}),
            "plan",
            "names a time",
        ),
        (Entry(role="plan", answer={"questions": [question(2.2, "What?", "later", "c7")]}), "plan", "there is no change 'c7'"),
        (
            Entry(role="answer", answer=speak("She washes her hands.", (9.0, 12.0), answers=0)),
            "answer",
            "the seconds that have been",
        ),
        (Entry(role="answer", answer=speak("她在切番茄。", (0.0, 1.0), answers=0)), "answer", "it is not in English"),
        (Entry(role="style", answer={"lines": []}), "style", "lines has 0 entries"),
    ],
)
def test_answers_that_fit_the_schema_and_yet_are_wrong(entry: Entry, stage: str, reason: str) -> None:
    with ReplayServer(Recording([entry, *SOUND])) as server:
        found = write(ModelAuthor(backend(server)))
    assert isinstance(found, Rejection) and found.stage == stage and reason in found.reason
