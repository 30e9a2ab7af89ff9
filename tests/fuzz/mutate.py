"""Damaged copies of sound inputs: bytes flipped, cut and repeated; JSON values exchanged, dropped and made extreme."""

from __future__ import annotations

import json
import random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 0.1, 1e308, float("nan"), float("inf"), 2**63, -(2**64), 10**40,
    "", " ", "\x00", "\ud800", "a" * 5000, "%s{}", "☃𝒳\u202e", "../../etc/passwd", "00:61:99.9", "-1:00", "1e999",
    "<|video|>", "<|image|>" * 40, "<|eot_id|>", "<|silence|>", "[RealTime QA][INFO]{", "[RealTime QA][PLACEHOLDER]",
    [], {}, [[]], [None], {"": None}, [0] * 300,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random, keep_length: bool = False) -> bytes:
    """One to four changes at random places.

    Args:
        keep_length: only changes in place.
    """
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            return bytes(rng.randrange(256) for _ in range(8))
        begin = rng.randrange(len(out))
        length = min(rng.choice((1, 1, 2, 4, 16, 64, 512)), len(out) - begin)
        change = rng.randrange(3 if keep_length else 6)
        if change == 0:
            out[begin] ^= 1 << rng.randrange(8)
        elif change == 1:
            out[begin : begin + length] = bytes(rng.randrange(256) for _ in range(length))
        elif change == 2:
            out[begin : begin + length] = bytes([rng.choice((0, 255, 48, 34, 92))]) * length
        elif change == 3:
            del out[begin : begin + length]
        elif change == 4:
            del out[begin:]
        else:
            out[begin:begin] = out[begin : begin + length]
    return bytes(out)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """The same document with one to three of its values replaced, dropped, doubled or renamed; now and then mere bytes."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    document = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        document = _change(document, rng)
    return json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _change(document: Any, rng: random.Random) -> Any:
    parent, key = _place(document, rng)
    if parent is None:
        return _hostile(rng) if rng.random() < 0.2 else document
    action = rng.randrange(4)
    if action == 0:
        parent[key] = _hostile(rng)
    elif action == 1:
        del parent[key]
    elif action == 2 and isinstance(parent, list):
        parent.insert(key, json.loads(json.dumps(parent[key])))
    elif action == 2:
        parent[rng.choice(("", "type", "markers", "kind", "extra", key + "s"))] = parent.pop(key)
    else:
        parent[key] = _nudged(parent[key], rng)
    return document


def _place(document: Any, rng: random.Random) -> tuple[Any, Any]:
    """A container and one of its keys, at any depth; (None, None) where there is none."""
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        value = waiting.pop()
        items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
        places += [(value, key) for key, _ in items]
        waiting += [inner for _, inner in items]
    return rng.choice(places) if places else (None, None)


def _hostile(rng: random.Random) -> Any:
    value = rng.choice(HOSTILE)
    return json.loads(json.dumps(value)) if isinstance(value, list | dict) else value


def _nudged(value: Any, rng: random.Random) -> Any:
    """Nearly the same value."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, value * 1000, value / 7, str(value)))
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        return rng.choice(
            (value[:cut], value * 2, value[:cut] + rng.choice(("<|video|>", "<|image|>", "\x00", "é")) + value[cut:])
        )
    return [value]
