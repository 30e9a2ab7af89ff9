"""Which of two texts is better, asked in both orders: a judge that likes the first one whatever it says decides nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

from inference.evaluation.judge.judge import JudgeRequest

Build = Callable[[str, str], list[dict[str, str]]]
"""Messages of a comparison of (A, B)."""


def both_orders(build: Build, ours: str, theirs: str, what: str) -> list[JudgeRequest[float]]:
    """Two requests, whose verdicts are our share of the win: 1, 0, or 0.5 for a tie. Their mean is the comparison's."""
    return [
        JudgeRequest(messages=build(ours, theirs), read=read_choice, what=f"{what}, ours first"),
        JudgeRequest(messages=build(theirs, ours), read=lambda reply: 1.0 - read_choice(reply), what=f"{what}, ours second"),
    ]


def read_choice(reply: str) -> float:
    """1 for A, 0 for B, 0.5 for a tie: the first of these words that stands alone.

    Raises:
        ValueError: there is none of them.
    """
    found = re.search(r"(?<![\w'])(A(?! tie)|B|[Tt]ie|TIE)(?![\w'])", reply)
    if found is None:
        raise ValueError(f"the reply {reply[:40]!r} names neither A nor B nor a tie")
    return {"A": 1.0, "B": 0.0}.get(found[1], 0.5)
