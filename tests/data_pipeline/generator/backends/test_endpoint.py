"""Asking over HTTP: what is sent, what is tried again, what it costs."""

from __future__ import annotations

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.generator.backends.chat import BudgetSpent, EndpointDown, MalformedAnswer, Refused
from data_pipeline.generator.backends.open import open_backend
from data_pipeline.generator.backends.replay.recording import Recording, read_recording, role_of
from data_pipeline.generator.backends.replay.server import Answering, ReplayServer, Response, completion, failure, faithful
from model.errors import InputError
from tests.data_pipeline.generator.backends.requests import ANSWER, RECORDING, backend, request


def in_turn(*responses: Response) -> Answering:
    """One after the other, the last one for ever."""
    turn = itertools.chain(responses, itertools.repeat(responses[-1]))
    return lambda values, answer: next(turn)


GOOD = Response(completion(ANSWER))


def test_the_request_is_what_the_protocol_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "secret")
    with ReplayServer(RECORDING) as server:
        asked = backend(server, api_key_env="THE_KEY", seed=5, temperature=0.25)
        assert asked.complete(request(images=(b"\x89PNG1", b"jpeg"), seed=2)) == ANSWER
    (sent,), (headers,) = server.requests, server.headers
    assert sent["model"] == "m" and sent["temperature"] == 0.25 and sent["seed"] == 7 and sent["max_tokens"] == 100
    assert role_of(sent) == "answer" and sent["response_format"]["json_schema"]["strict"] is True
    text, png, jpeg = sent["messages"][1]["content"]
    assert text["text"] == "It is 2 s." and png["image_url"]["url"].startswith("data:image/png;base64,")
    assert jpeg["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == "Bearer secret"
    assert asked.usage().calls == 1 and asked.usage().input_tokens == 100


def test_a_malformed_answer_is_repaired_once_and_is_told_why() -> None:
    with ReplayServer(RECORDING, in_turn(Response(completion({"action": "speak"})), GOOD)) as server:
        assert backend(server).complete(request()) == ANSWER
    assert "lacks the field text" in server.requests[1]["messages"][-1]["content"]
    with ReplayServer(RECORDING, in_turn(Response(completion("no")))) as server:
        with pytest.raises(MalformedAnswer, match="asked twice: it holds no JSON object"):
            backend(server).complete(request())
        assert len(server.requests) == 2


def test_busy_and_broken_endpoints_are_asked_again() -> None:
    turns = in_turn(failure(429, "slow", {"retry-after": "0.01"}), failure(503, "x"), Response(b"", drop=True), GOOD)
    with ReplayServer(RECORDING, turns) as server:
        asked = backend(server, retries=3)
        assert asked.complete(request()) == ANSWER
        assert asked.usage().retries == 3 and asked.usage().roles["answer"]["calls"] == 1


def test_retry_after_is_obeyed_up_to_the_longest_wait() -> None:
    with ReplayServer(RECORDING, in_turn(failure(429, "slow", {"retry-after": "0.3"}), GOOD)) as server:
        begin = time.monotonic()
        backend(server, longest_wait=5.0).complete(request())
        assert time.monotonic() - begin >= 0.3
    with ReplayServer(RECORDING, in_turn(failure(429, "slow", {"retry-after": "3000"}), GOOD)) as server:
        begin = time.monotonic()
        backend(server, longest_wait=0.05).complete(request())
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(("status", "error"), [(401, EndpointDown), (403, EndpointDown), (404, EndpointDown), (413, Refused)])
def test_what_cannot_get_better_is_not_asked_again(status: int, error: type[Exception]) -> None:
    with ReplayServer(RECORDING, in_turn(failure(status, "no such model"))) as server:
        with pytest.raises(error, match="no such model"):
            backend(server, retries=4).complete(request())
        assert len(server.requests) == 1


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with ReplayServer(RECORDING) as server:
        url = server.url
    with pytest.raises(EndpointDown, match=f"{url} gave no answer in 2 attempts"):
        open_backend({"base_url": url, "model": "m", "retries": 1, "wait": 0.01}).complete(request())


def test_a_form_of_answer_that_is_unknown_gives_way_to_the_next() -> None:
    def picky(values: dict[str, Any], answer: dict[str, Any] | None) -> Response:
        return failure(400, "response_format is not supported") if "response_format" in values else GOOD

    with ReplayServer(RECORDING, picky) as server:
        asked = backend(server)
        assert asked.complete(request()) == ANSWER and asked.complete(request()) == ANSWER
    assert len(server.requests) == 4  # json_schema, json_object, text, and text at once the next time
    assert '"required"' in server.requests[-1]["messages"][0]["content"]


def test_the_budget_is_never_exceeded_even_by_many_threads() -> None:
    with ReplayServer(RECORDING) as server:
        asked = backend(server, budget_tokens=1500, concurrency=8)

        def one(_: int) -> bool:
            try:
                asked.complete(request())
            except BudgetSpent:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            done = sum(pool.map(one, range(60)))
        used = asked.usage()
        assert 0 < done < 60 and used.calls == done and used.input_tokens + used.output_tokens <= 1500
        with pytest.raises(BudgetSpent, match=r"model\.budget_tokens is 1,500"):
            for _ in range(60):
                asked.complete(request())


def test_dollars_are_counted_by_role_and_stop() -> None:
    with ReplayServer(RECORDING) as server:
        asked = backend(server, prices={"input": 1000.0, "output": 10.0}, budget_dollars=0.35)
        asked.complete(request())
        tokens = asked.usage().output_tokens
        assert asked.usage().dollars == pytest.approx(0.1 + tokens * 10 / 1e6) == asked.usage().roles["answer"]["dollars"]
        with pytest.raises(BudgetSpent, match=r"budget_dollars is 0\.35"):
            for _ in range(9):
                asked.complete(request())


def test_no_more_requests_than_allowed_are_under_way() -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def slow(values: dict[str, Any], answer: dict[str, Any] | None) -> Response:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        with lock:
            busy -= 1
        return faithful(values, answer)

    with ReplayServer(RECORDING, slow) as server, ThreadPoolExecutor(12) as pool:
        asked = backend(server, concurrency=3)
        assert list(pool.map(lambda _: asked.complete(request()), range(24))) == [ANSWER] * 24
    assert 1 < most <= 3


def test_what_is_recorded_is_played_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with ReplayServer(RECORDING) as server:
        asked = backend(server, record=str(path))
        asked.complete(request("one"))
        asked.complete(request("two", images=(b"x",)))
    with ReplayServer(read_recording(path)) as server:
        again = backend(server, model="other", temperature=0.9)
        assert again.complete(request("one")) == again.complete(request("two", images=(b"x",))) == ANSWER
        with pytest.raises(Refused, match="nothing was recorded"):
            again.complete(request("two", images=(b"y",)))


def test_entries_are_found_by_role_and_words(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    lines = [
        {"role": "plan", "contains": ["kitchen"], "answer": {"n": 1}},
        {"role": "plan", "contains": ["~It is [34] s", "garden"], "answer": {"n": 2}},
        {"answer": {"n": 3}, "about": "all others"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    recording: Recording = read_recording(path)

    def found(role: str, text: str) -> Any:
        form = {"type": "json_schema", "json_schema": {"name": role}}
        return recording.find({"messages": [{"role": "user", "content": text}], "response_format": form})

    assert [found("plan", "a kitchen"), found("plan", "garden. It is 4 s"), found("plan", "garden. It is 5 s")] == [
        {"n": 1},
        {"n": 2},
        {"n": 3},
    ]
    path.write_text('{"answer": {}, "contain": []}')
    with pytest.raises(InputError, match="line 1 has the unknown field 'contain'"):
        read_recording(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "model.base_url is missing"),
        ({"base_url": "localhost:8000", "model": "m"}, "model.base_url is 'localhost:8000'"),
        ({"base_url": "http://x/v1", "model": "m", "timeot": 3}, "model.timeot is unknown"),
        ({"base_url": "http://x/v1", "model": "m", "timeout": 0}, "model.timeout is 0"),
        ({"base_url": "http://x/v1", "model": "m", "concurrency": 1.5}, "model.concurrency is 1.5; it must be a whole number"),
        ({"base_url": "http://x/v1", "model": "m", "retries": True}, "model.retries is True"),
        ({"base_url": "http://x/v1", "model": "m", "prices": {"in": 1}}, "model.prices.in is 1"),
        ({"base_url": "http://x/v1", "model": "m", "budget_dollars": 1.0}, "needs model.prices.input"),
        ({"base_url": "http://x/v1", "model": "m", "api_key_env": "NO_SUCH_KEY_HERE"}, "NO_SUCH_KEY_HERE, which is not set"),
    ],
)
def test_settings_that_cannot_be_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_backend(values)
