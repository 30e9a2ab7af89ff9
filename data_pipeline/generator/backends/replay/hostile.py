"""Answers that no client likes: twenty-five kinds, each in as many shapes as are asked for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from data_pipeline.generator.backends.replay.server import Answering, Response, completion, failure

Hostile = Callable[[random.Random, dict[str, Any], float], Response]
"""From chance, the proper answer and the client's time limit to what is sent."""


def _cut_json(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    text = json.dumps(answer)
    return Response(completion(text[: rng.randrange(1, len(text))]))


def _prose(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion(rng.choice(["Sure! The video shows a ball.", "silence", "…", "[1, 2", "None", "speak: red ball"])))


def _refusal_field(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion(None, refusal=rng.choice(["I can't help with that.", "no", "拒绝"])))


def _refusal_text(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(
        completion(rng.choice(["I'm sorry, but I can't describe people.", "As an AI, I cannot watch.", "抱歉，我不能回答。"]))
    )


def _filtered(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion(rng.choice(["", None, json.dumps(answer)]), "content_filter"))


def _wrong_types(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    key = rng.choice(sorted(answer))
    return Response(completion({**answer, key: rng.choice([{"a": 1}, [[]], -1e308, {"text": key}])}))


def _missing_field(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    gone = rng.choice(sorted(answer))
    return Response(completion({key: value for key, value in answer.items() if key != gone}))


def _extra_field(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion({**answer, rng.choice(["confidence", "__class__", "", "answers "]): 1}))


def _no_numbers(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    text = json.dumps(answer)[:-1] + f', "x": {rng.choice(["NaN", "Infinity", "-Infinity"])}}}'
    return Response(completion(text))


def _other_root(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion(rng.choice(["[]", "null", "17", '"text"', "[[{]]", "true"])))


def _empty(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion(rng.choice(["", None, "   ", "\n", "{}"])))


def _no_choices(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    bodies = [
        b"{}",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [7]}',
        b'{"choices": [{"message": "x"}]}',
        b'{"choices": {}}',
    ]
    return Response(rng.choice(bodies))


def _deep(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    depth = rng.choice([60, 900, 5000, 100_000])
    return Response(completion('{"a":' * depth + "1" + "}" * depth))


def _not_json(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    bodies = [b"<html><body>502 Bad Gateway</body></html>", b"", b"\xff\xfe\x00", b"data: {}\n\ndata: [DONE]\n", b"{" * 20_000]
    return Response(
        rng.choice(bodies), headers={"content-type": rng.choice(["text/html", "application/json", "text/event-stream"])}
    )


def _busy(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    after = rng.choice(["0", "0.01", "-5", "soon", "1e30", "Wed, 21 Oct 2015 07:28:00 GMT"])
    return failure(429, "slow down", {"retry-after": after})


def _broken(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return failure(rng.choice([500, 502, 503, 504, 529]), "the engine has fallen over")


def _too_late(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(completion(answer), pause=limit * rng.uniform(1.5, 3))


def _dropped(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    body = completion(answer)
    if rng.random() < 0.5:
        return Response(b"", drop=True)
    return Response(body[: rng.randrange(1, len(body))], claimed=len(body))


def _dripping(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    pieces = [bytes([byte]) for byte in completion(answer)]
    return Response(pieces, pause_between=limit * rng.uniform(0.1, 0.4))


def _cut_by_length(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    text = json.dumps(answer)
    return Response(completion(text[: rng.randrange(len(text))] + "x" * rng.choice([0, 10, 9_000_000]), "length"))


def _dripping_headers(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    return Response(b"", drip=True, pause_between=limit * rng.uniform(0.1, 0.4))


def _dripping_failure(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    pause = limit * rng.uniform(0.1, 0.4)
    if rng.random() < 0.3:  # a packed body whose header does not end, so that nothing ever comes out of it
        pieces = [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", *[b"n"] * 200]
        return Response(pieces, headers={"content-encoding": "gzip"}, pause_between=pause, claimed=100_000)
    return Response([b"x"] * 200, rng.choice([429, 500, 503]), pause_between=pause, claimed=100_000)


def _half_characters(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    text = rng.choice(["\ud800", "\udfff no", json.dumps({**answer, "text": "\ud83d"}), '{"\udc00": 1}'])
    return Response(completion(text, rng.choice(["stop", "length"]) if text[0] != "{" else "stop"))


def _drafts(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    text, other = json.dumps(answer), json.dumps({**answer, "draft": 1})
    texts = [f"<think>{text}", f"{text} was wrong.</think>", f"<think>a</think> <think>{text}", f"{text}</think>{other}"]
    return Response(completion(rng.choice(texts)))


def _beyond_numbers(rng: random.Random, answer: dict[str, Any], limit: float) -> Response:
    key = rng.choice(sorted(answer))
    value = rng.choice(["1e999", "-1e999", "9" * 5000, "NaN", '"x", ' + json.dumps(key) + ': "y"'])
    rest = json.dumps({name: one for name, one in answer.items() if name != key} | {"last": 1})
    return Response(completion(f"{{{json.dumps(key)}: {value}, {rest[1:]}"))


HOSTILE: dict[str, Hostile] = {
    kind.__name__.strip("_"): kind
    for kind in (
        _cut_json,
        _prose,
        _refusal_field,
        _refusal_text,
        _filtered,
        _wrong_types,
        _missing_field,
        _extra_field,
        _no_numbers,
        _other_root,
        _empty,
        _no_choices,
        _deep,
        _not_json,
        _busy,
        _broken,
        _too_late,
        _dropped,
        _dripping,
        _cut_by_length,
        _dripping_headers,
        _dripping_failure,
        _half_characters,
        _drafts,
        _beyond_numbers,
    )
}
"""By name."""


def always(kind: str, seed: int, limit: float) -> Answering:
    """Answers every request in one hostile way.

    Args:
        limit: the client's time limit in seconds.
    """
    rng = random.Random(f"{kind} {seed}")
    return lambda request, answer: HOSTILE[kind](rng, answer or {"a": 1}, limit)


def at_times(share: float, seed: int, limit: float, ordinary: Answering) -> Answering:
    """Answers a share of the requests in a hostile way, drawn anew for each."""
    rng = random.Random(seed)

    def answering(request: dict[str, Any], answer: dict[str, Any] | None) -> Response:
        if rng.random() < share:
            return HOSTILE[rng.choice(sorted(HOSTILE))](rng, answer or {"a": 1}, limit)
        return ordinary(request, answer)

    return answering
