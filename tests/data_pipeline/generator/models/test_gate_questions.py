from __future__ import annotations

import pytest

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.backends.chat import ChatRequest
from data_pipeline.generator.models.gate_questions import blind_share, leaks
from data_pipeline.generator.plan import Draft
from tests.data_pipeline.generator.models.scripted import ScriptedBackend
from tests.data_pipeline.generator.models.test_model_author import SCRIPT, write
from tests.data_pipeline.generator.samples import kitchen


def draft() -> Draft:
    """`Look: She is cutting it.` at 4 s, corrected at 9 s."""
    found = write(ScriptedBackend(SCRIPT))
    assert isinstance(found, Draft)
    return found


def test_a_question_that_can_be_guessed() -> None:
    backend = ScriptedBackend({"blind": {"answers": ["She is cutting it", "She eats it"]}, "same": {"same": False}})
    assert blind_share(backend, draft()) == 0.5
    assert "tomato?" in backend.requests[0].text and "hands" not in backend.requests[0].text
    assert [r.role for r in backend.requests] == ["blind", "same"], "equal words need no second opinion"
    with pytest.raises(Unfit, match="answers has 1 entries; 2 questions"):
        blind_share(ScriptedBackend({"blind": {"answers": ["x"]}}), draft())


def test_answers_must_fail_before_their_evidence_and_hold_after_it() -> None:
    def honest(request: ChatRequest) -> dict[str, object]:
        if "hands" in request.text:
            return {"known": True, "answer": "Now she washes her hands"}
        cut = "cuts the tomato" in request.text
        return {"known": cut, "answer": "she is cutting it" if cut else ""}

    backend = ScriptedBackend({"seen": honest, "same": {"same": False}})
    assert [(leak.before, leak.after, leak.clean) for leak in leaks(backend, draft(), kitchen())] == [(False, True, True)] * 2
    assert all("washes her hands" not in r.text for r in backend.asked("seen")[:3])

    knowing = ScriptedBackend({"seen": {"known": True, "answer": "she is cutting it"}, "same": {"same": False}})
    assert [leak.clean for leak in leaks(knowing, draft(), kitchen())] == [False, False]
