"""Endpoints with habits of their own: half characters, repeated keys, empty accounts, unknown fields, high counts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.generator.backends.chat import (
    BackendError,
    BudgetSpent,
    EndpointClosed,
    EndpointDown,
    MalformedAnswer,
    Refused,
)
from data_pipeline.generator.backends.replay.recording import read_recording
from data_pipeline.generator.backends.replay.server import Answering, ReplayServer, Response, completion, failure
from model.errors import InputError
from tests.data_pipeline.generator.backends.requests import ANSWER, RECORDING, backend, request

GOOD = Response(completion(ANSWER))


def test_half_a_character_in_an_answer_is_malformed_and_can_be_repeated_for_the_repair() -> None:
    body = b'{"choices":[{"message":{"content":"\\ud800 no json"}}]}'
    with ReplayServer(RECORDING, lambda values, answer: Response(body)) as server, pytest.raises(MalformedAnswer):
        backend(server).complete(request())
    assert server.requests[1]["messages"][-2]["content"] == "? no json"


def test_half_a_character_in_a_request_is_not_sent() -> None:
    with ReplayServer(RECORDING) as server:
        for asked in (request("a \ud800"), request(system="\udfff")):
            with pytest.raises(Refused, match="request answer holds half a character"):
                backend(server).complete(asked)
    assert not server.requests


@pytest.mark.parametrize("key", ["sk-ключ", "sk-secret\n", " sk-secret"])
def test_a_key_that_no_header_can_hold_is_named_without_being_told(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("THE_KEY", key)
    with ReplayServer(RECORDING) as server, pytest.raises(InputError, match="THE_KEY, whose value holds") as caught:
        backend(server, api_key_env="THE_KEY")
    assert "sk" not in str(caught.value)


def refusing(text: str) -> Answering:
    return lambda values, answer: Response(completion(None, refusal=text))


@pytest.mark.parametrize(
    "answering",
    [
        lambda values, answer: failure(401, "Incorrect API key: sk-secret-1"),
        lambda values, answer: failure(400, "x" * 290 + " sk-secret-1"),
        lambda values, answer: failure(503, "sk-secret-1"),
        lambda values, answer: Response(b"sk-secret-1", 418),
        refusing("sk-secret-1\nis no key"),
        lambda values, answer: Response(completion({"action": "sk-secret-1"})),
    ],
)
def test_a_key_that_the_endpoint_repeats_is_in_no_message(monkeypatch: pytest.MonkeyPatch, answering: Answering) -> None:
    monkeypatch.setenv("THE_KEY", "sk-secret-1")
    with ReplayServer(RECORDING, answering) as server, pytest.raises(BackendError) as caught:
        backend(server, api_key_env="THE_KEY").complete(request())
    told = str(caught.value)
    assert "sk-sec" not in told and "\n" not in told


@pytest.mark.parametrize("status", [402, 308])
def test_an_empty_account_and_another_address_stop_all(status: int) -> None:
    with ReplayServer(RECORDING, lambda values, answer: failure(status, "pay", {"location": "http://x/"})) as server:
        asked = backend(server)
        with pytest.raises(EndpointClosed, match=f"answers {status}.*start again"):
            asked.complete(request())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("unknown", "told"),
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ("temperature", "Unsupported value: 'temperature' does not support 0"),
        ("seed", "Extra inputs are not permitted: seed"),
        ("response_format", "this model has no structured output"),
    ],
)
def test_a_field_that_is_unknown_is_left_out_from_then_on(unknown: str, told: str) -> None:
    with ReplayServer(RECORDING, lambda values, answer: failure(400, told) if unknown in values else GOOD) as server:
        asked = backend(server)
        assert asked.complete(request()) == asked.complete(request()) == ANSWER
    last = server.requests[-1]
    assert unknown not in last and (last.get("max_tokens") or last.get("max_completion_tokens")) == 100
    assert sum(unknown not in one for one in server.requests) == 2


def test_a_rejection_for_another_reason_changes_nothing() -> None:
    def long(values: dict[str, Any], answer: dict[str, Any] | None) -> Response:
        return failure(400, "the prompt is too long") if "LONG" in json.dumps(values) else GOOD

    with ReplayServer(RECORDING, long) as server:
        asked = backend(server)
        with pytest.raises(Refused, match="too long"):
            asked.complete(request("LONG"))
        assert asked.complete(request()) == ANSWER
        assert server.requests[-1]["response_format"]["type"] == "json_schema"
        with pytest.raises(Refused, match="too long"):
            asked.complete(request("LONG"))
    assert len(server.requests) == 5  # three forms at first; none but the known one once it has served


@pytest.mark.parametrize("form", ["json_object", "text"])
def test_a_recording_is_found_in_whichever_form_it_was_made(tmp_path: Path, form: str) -> None:
    path = tmp_path / "answers.jsonl"
    with ReplayServer(RECORDING, lambda values, answer: Response(completion(ANSWER))) as server:
        backend(server, record=str(path), response_format=form).complete(request())
    with ReplayServer(read_recording(path)) as server:
        assert backend(server).complete(request()) == ANSWER
        assert backend(server, response_format="text").complete(request()) == ANSWER
        with pytest.raises(Refused, match="nothing was recorded"):
            backend(server).complete(request("another"))


def dear(tokens: int) -> Answering:
    usage = {"prompt_tokens": tokens, "completion_tokens": 5}
    body = {"choices": [{"message": {"content": json.dumps(ANSWER)}}], "usage": usage}
    return lambda values, answer: Response(json.dumps(body).encode(), pause=0.02)


def test_a_budget_holds_though_the_endpoint_counts_more_than_estimated() -> None:
    def one(_: int) -> bool:
        try:
            asked.complete(request())
        except BudgetSpent:
            return False
        return True

    for budget, most in ((20_000, 20_000), (2_000, 5_005)):  # at worst the very first request costs more than all
        with ReplayServer(RECORDING, dear(5000)) as server:
            asked = backend(server, budget_tokens=budget, concurrency=8)
            with ThreadPoolExecutor(8) as pool:
                done = sum(pool.map(one, range(30)))
        spent = asked.usage().input_tokens + asked.usage().output_tokens
        assert done >= 1 and spent == 5005 * done <= most


def test_attempts_without_an_answer_in_time_are_paid_for_and_stop_at_the_budget() -> None:
    with ReplayServer(RECORDING, lambda values, answer: Response(completion(ANSWER), pause=1.0)) as server:
        asked = backend(server, retries=2, timeout=0.1)
        with pytest.raises(EndpointDown, match="no complete answer within"):
            asked.complete(request())
        lost = asked.usage()
        each = (lost.input_tokens + lost.output_tokens) / 3
        assert lost.output_tokens == 300 and lost.input_tokens > 300 and lost.calls == 0
        begun = len(server.requests)
        with pytest.raises(BudgetSpent):
            backend(server, retries=9, timeout=0.1, budget_tokens=2.5 * each).complete(request())
        assert len(server.requests) - begun == 2
