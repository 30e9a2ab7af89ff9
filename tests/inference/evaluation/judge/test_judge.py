"""The judge: each thing asked once over HTTP, remembered, replayed without an endpoint, and errors that say what to do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.judge.both_orders import both_orders, read_choice
from inference.evaluation.judge.cache import ReplyCache, key_of
from inference.evaluation.judge.endpoint import Endpoint
from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.judge.open import OpenJudge, add_judge_arguments, judge_from
from model.errors import InputError
from tests.inference.evaluation.judge.server import Server, says, serving


def _number(reply: str) -> int:
    if not reply.isdigit():
        raise ValueError(f"{reply!r} is no number")
    return int(reply)


def _requests(*words: str) -> list[JudgeRequest[int]]:
    return [JudgeRequest(messages=[{"role": "user", "content": word}], read=_number, what=f"word {word}") for word in words]


def _lengths(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, says(str(len(body["messages"][0]["content"])))


def _endpoint(server: Server, **more: Any) -> Endpoint:
    settings: dict[str, Any] = {"pause": 0.0, "key_env": "MOSS_TEST_KEY"} | more
    return Endpoint(url=server.url, model="m", **settings)


def test_each_thing_is_asked_once_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_TEST_KEY", "secret")
    path = tmp_path / "judge.jsonl"
    seen: list[tuple[int, int]] = []
    with serving(_lengths) as server:
        judge = OpenJudge("m", ReplyCache(path), _endpoint(server), on_done=lambda *counts: seen.append(counts))
        assert judge.ask(_requests("a", "four", "a", "to")) == [1, 4, 1, 2]
        assert judge.asked == 3 and len(server.bodies) == 3 and seen == [(1, 3), (2, 3), (3, 3)]
        assert server.bodies[0]["model"] == "m" and server.bodies[0]["temperature"] == 0.0
        where, headers = server.headers[0]
        assert where == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
        again = OpenJudge("m", ReplyCache(path), _endpoint(server))
        assert again.ask(_requests("to", "a", "three")) == [2, 1, 5] and again.asked == 1
    # Nobody is asked any more, and the key is nowhere.
    replay = OpenJudge("m", ReplyCache(path), None)
    assert replay.ask(_requests("three", "four")) == [5, 4] and "secret" not in path.read_text()
    with pytest.raises(InputError, match="no reply of m on word new is recorded"):
        replay.ask(_requests("new"))
    with pytest.raises(InputError, match="no reply of other on word four"):
        OpenJudge("other", ReplyCache(path), None).ask(_requests("four"))


def test_a_reply_without_a_verdict_is_asked_for_again() -> None:
    with serving(lambda body: (200, says("hm" if body["temperature"] == 0 else "7"))) as server:
        judge = OpenJudge("m", ReplyCache(None), _endpoint(server))
        assert judge.ask(_requests("x")) == [7] and judge.asked == 2
    with serving(lambda body: (200, says("hm"))) as server:
        judge = OpenJudge("m", ReplyCache(None), _endpoint(server))
        with pytest.raises(InputError, match=r"gave no verdict on word x in 3 attempts .*'hm' is no number"):
            judge.ask(_requests("x"))
        assert len(server.bodies) == 3


def test_what_was_judged_before_a_failure_is_kept(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, {"error": {"message": "too\nlong"}}) if body["messages"][0]["content"] == "bad" else _lengths(body)

    path = tmp_path / "judge.jsonl"
    with serving(answer) as server, pytest.raises(InputError, match=r"refuses: status 400: too long; mend"):
        OpenJudge("m", ReplyCache(path), _endpoint(server), concurrency=1).ask(_requests("a", "four", "bad"))
    assert OpenJudge("m", ReplyCache(path), None).ask(_requests("a", "four")) == [1, 4]


def test_failures_that_pass_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_TEST_KEY", "secret")
    left = [(500, b"oops"), (429, {"error": {"message": "slow down secret"}})]
    with serving(lambda body: left.pop(0) if left else _lengths(body)) as server:
        assert _endpoint(server).complete([{"role": "user", "content": "abc"}]) == "3"
    with (
        serving(lambda body: (503, {"error": {"message": "slow down secret"}})) as server,
        pytest.raises(InputError, match=r"no answer in 3 attempts \(the last one: status 503: slow down \[MOSS_TEST_KEY\]\)"),
    ):
        _endpoint(server, retries=2).complete([])
    with pytest.raises(InputError, match="gave no answer in 1 attempts"):
        _endpoint(server, retries=0).complete([])  # it is closed


@pytest.mark.parametrize("content", [b"<html>", {"choices": []}, [1], {"choices": [{"message": None}]}])
def test_other_servers_are_told_from_endpoints(content: Any) -> None:
    with serving(lambda body: (200, content)) as server, pytest.raises(InputError, match="give an endpoint of OpenAI's protocol"):
        _endpoint(server).complete([])


def test_the_cache_survives_a_cut_line_and_names_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "judge.jsonl"
    cache = ReplyCache(path)
    for name in ("a", "b"):
        cache.put(name, "m", "x", f"reply {name}")
    with path.open("a") as file:
        file.write('{"key": "c", "rep')
    mended = ReplyCache(path)
    assert len(mended) == 2 and mended.get("b") == "reply b"
    mended.put("c", "m", "x", "whole")
    assert ReplyCache(path).get("c") == "whole"
    path.write_text('{"key": "a"}\n' + path.read_text())
    with pytest.raises(InputError, match=r"judge\.jsonl line 1 is damaged"):
        ReplyCache(path)


def test_a_reply_belongs_to_all_that_it_depends_on() -> None:
    messages = [{"role": "user", "content": "x"}]
    keys = {
        key_of("m", messages, {"temperature": 0}, 0),
        key_of("n", messages, {"temperature": 0}, 0),
        key_of("m", messages, {"temperature": 1}, 0),
        key_of("m", messages, {"temperature": 0}, 1),
        key_of("m", [{"role": "user", "content": "y"}], {"temperature": 0}, 0),
    }
    assert len(keys) == 5 and key_of("m", messages, {"temperature": 0}, 0) in keys


def test_a_judge_that_likes_the_first_text_decides_nothing() -> None:
    def build(a: str, b: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"A: {a}\nB: {b}"}]

    pair = both_orders(build, "our words", "theirs", "clip 1")
    assert [request.messages[0]["content"] for request in pair] == ["A: our words\nB: theirs", "A: theirs\nB: our words"]
    assert [request.read("A") for request in pair] == [1.0, 0.0]  # the first text, whoever's: half a win
    assert [request.read(reply) for request, reply in zip(pair, ("A", "B is better"), strict=True)] == [1.0, 1.0]
    assert [request.read("A tie.") for request in pair] == [0.5, 0.5] and pair[0].what != pair[1].what
    for wrong in ("", "both", "Apples"):
        with pytest.raises(ValueError, match="only A, B or tie"):
            read_choice(wrong)


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_judge_arguments(parser)
    return parser.parse_args(words)


def test_arguments(tmp_path: Path) -> None:
    assert judge_from(_parsed([]), tmp_path) is None
    judge = judge_from(_parsed(["--judge", "http://localhost:1/v1", "--judge-model", "m"]), tmp_path)
    assert judge is not None and judge.name == "m"
    (tmp_path / "judge.jsonl").write_text("")
    assert judge_from(_parsed(["--judge", "replay", "--judge-model", "m"]), tmp_path) is not None
    for words, message in (
        (["--judge-model", "m"], "--judge is missing"),
        (["--judge", "http://x/v1"], "--judge needs --judge-model"),
        (["--judge", "localhost", "--judge-model", "m"], "judge address 'localhost' is none"),
        (["--judge", "replay", "--judge-model", "m", "--judge-cache", str(tmp_path / "none")], "which does not exist"),
        (["--judge", "http://x/v1", "--judge-model", "m", "--judge-concurrency", "0"], "both must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            judge_from(_parsed(words), tmp_path)
