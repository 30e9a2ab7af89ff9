"""Replies that say more, less or something else than a verdict, and servers that want the key or all of the time."""

from __future__ import annotations

import http.server
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.judge.both_orders import read_choice
from inference.evaluation.judge.cache import ReplyCache, key_of
from inference.evaluation.judge.endpoint import Endpoint
from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.judge.open import OpenJudge
from inference.evaluation.judge.replies import whole_number, without_thoughts
from inference.evaluation.suites.omnimmi.scorer import read_verdict
from inference.evaluation.suites.svbench.scorer import read_criteria, read_single
from model.errors import InputError
from tests.inference.evaluation.judge.server import says, serving


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("8", 8),
        ("On a scale of 0 to 10, I give 7", 7),
        ("Rating (0-10): 8", 8),
        ("**Score: 10/10**", 10),
        ("7, clearly 7 out of 10", 7),
    ],
)
def test_the_scale_is_no_verdict(reply: str, number: int) -> None:
    assert read_single(reply) == {"accuracy": number}


@pytest.mark.parametrize(
    "reply", ["I cannot judge item 3 and 4.", "7.5", "between 3 and 5", "no", "11", "-1", "right in 3 of 4 points"]
)
def test_what_is_no_single_number_is_asked_for_again(reply: str) -> None:
    with pytest.raises(ValueError, match="from 0 to 10 is wanted"):
        read_single(reply)


def test_criteria_on_one_line_and_with_their_scale() -> None:
    assert read_criteria("SA (0-10): 7, CC: 6, LC = 5, TU: -1, IC **4**, OS (overall): 9/10") == {
        "SA": 7, "CC": 6, "LC": 5, "TU": -1, "IC": 4, "OS": 9,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"7\.5"):
        read_criteria("SA: 7.5\nCC: 6\nLC: 5\nTU: 1\nIC: 4\nOS: 9")


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ("A", 1.0),
        ("**B**", 0.0),
        ("tie", 0.5),
        ("A tie.", 0.5),
        ("Commentary A", 1.0),
        ("Verdict: B is better.", 0.0),
        ("A is vivid.\nB", 0.0),
    ],
)
def test_which_is_better(reply: str, share: float) -> None:
    assert read_choice(reply) == share


@pytest.mark.parametrize(
    "reply",
    ["A closer reading shows that B is better", "Neither A nor B can be preferred.", "I cannot compare A and B.", "", "a"],
)
def test_an_article_is_no_choice(reply: str) -> None:
    with pytest.raises(ValueError, match="no line that says only"):
        read_choice(reply)


def test_yes_and_no_at_once_are_neither() -> None:
    assert read_verdict("Yes, 4") == (True, 4)
    with pytest.raises(ValueError, match="or both"):
        read_verdict("yes or no? 3")


def test_thoughts_are_not_read() -> None:
    assert without_thoughts("<think>The scale is 0 to 10: 3?</think>\n8") == "8"
    with pytest.raises(ValueError, match="do not end"):
        without_thoughts("<think>Perhaps 3")
    answers = iter(["<think>cut", "<think>0 to 10</think> 6"])
    with serving(lambda _: (200, says(next(answers)))) as server:
        judge = OpenJudge("m", ReplyCache(None), Endpoint(url=server.url, model="m", pause=0.0))
        request = JudgeRequest(messages=[{"role": "user", "content": "x"}], read=read_single, what="x")
        assert judge.ask([request]) == [{"accuracy": 6}] and judge.asked == 2
        assert [body["seed"] for body in server.bodies] == [0, 1]


@given(st.integers(0, 10), st.text(alphabet="abc .,:*", max_size=20), st.text(alphabet="abc .,:*", max_size=20))
def test_a_number_among_words(number: int, before: str, behind: str) -> None:
    assert whole_number(f"{before} {number} {behind}", 0, 10) == number


def test_a_reply_that_was_cut_is_asked_for_again() -> None:
    cut: dict[str, Any] = says("right in 3")
    cut["choices"][0]["finish_reason"] = "length"
    answers = iter([cut, says("9")])
    with serving(lambda _: (200, next(answers))) as server:
        judge = OpenJudge("m", ReplyCache(None), Endpoint(url=server.url, model="m", pause=0.0))
        assert judge.ask([JudgeRequest(messages=[], read=read_single, what="x")]) == [{"accuracy": 9}]


def test_a_redirect_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_TEST_KEY", "secret")
    with serving(lambda _: (200, says("1"))) as other:

        class Redirecting(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"{other.url}/chat/completions")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.server_address[1]}/v1", model="m", key_env="MOSS_TEST_KEY", pause=0.0)
        with pytest.raises(InputError, match="refuses: status 302"):
            endpoint.complete([])
        server.shutdown()
        server.server_close()
        assert other.headers == []


def test_a_server_that_drips_is_not_waited_for_without_end() -> None:
    class Dripping(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(1000):
                try:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.02)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    endpoint = Endpoint(url=f"http://127.0.0.1:{server.server_address[1]}/v1", model="m", timeout=0.2, retries=0)
    with pytest.raises(InputError, match=r"not whole after 0\.2 s"):
        endpoint.complete([])
    server.shutdown()
    server.server_close()


def test_a_cache_without_its_last_line_end_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "judge.jsonl"
    first = ReplyCache(path)
    first.put("a", "m", "x", "eins")
    first.put("b", "m", "y", "zwei \ud800")  # half of a pair of surrogates, as broken text has it
    path.write_bytes(path.read_bytes()[:-1])
    again = ReplyCache(path)
    again.put("c", "m", "z", "drei")
    read = ReplyCache(path)
    assert [read.get(key) for key in "abc"] == ["eins", "zwei \ud800", "drei"]
    path.write_bytes(path.read_bytes() + '{"key": "d", "reply": "ü'.encode()[:-1])  # killed in the midst of a character
    assert len(ReplyCache(path)) == 3 and len(ReplyCache(path)) == 3
    assert key_of("m", [{"role": "user", "content": "\ud800"}], {}, 0)
