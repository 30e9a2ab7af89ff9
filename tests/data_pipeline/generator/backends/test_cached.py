"""Answers are asked for once."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.cached import CachedBackend, request_digest
from data_pipeline.generator.backends.replay.server import ReplayServer
from tests.data_pipeline.generator.backends.requests import ANSWER, RECORDING, backend, request


def test_a_request_is_answered_from_the_folder_the_next_time(tmp_path: Path) -> None:
    with ReplayServer(RECORDING) as server:
        first = CachedBackend(backend(server), tmp_path)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: first.complete(request()), range(16))) == [ANSWER] * 16
        assert len(server.requests) == 1 and first.usage().cached == 15
        again = CachedBackend(backend(server), tmp_path)
        assert again.complete(request()) == ANSWER and again.usage().calls == 0
        again.complete(request("another"))
        assert len(server.requests) == 2


def test_damaged_files_are_asked_for_again(tmp_path: Path) -> None:
    with ReplayServer(RECORDING) as server:
        asked = CachedBackend(backend(server), tmp_path)
        asked.complete(request())
        (file,) = tmp_path.rglob("*.json")
        for damage in ("{", "[]", '{"answer": {"action": "shout"}}', ""):
            file.write_text(damage)
            assert asked.complete(request()) == ANSWER
        assert len(server.requests) == 5
        assert len(list(tmp_path.rglob("*"))) == 3  # answer, answer/ab, answer/ab/digest.json


def test_the_digest_depends_on_all_that_the_answer_does() -> None:
    base = request(images=(b"a",))
    changes: list[dict[str, Any]] = [
        {"role": "plan"},
        {"system": "x"},
        {"text": "x"},
        {"images": (b"b",)},
        {"schema": {}},
        {"max_tokens": 7},
        {"temperature": 0.5},
        {"seed": 3},
    ]
    others = [dataclasses.replace(base, **change) for change in changes]
    digests = {request_digest(one, "m") for one in [base, *others]} | {request_digest(base, "other")}
    assert len(digests) == 10
