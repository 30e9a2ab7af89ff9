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


_CHOICE = re.compile(
    r"""^\W*(?i:(?:the\s+)?(?:commentary|answer|verdict|winner|choice|option|result|preferred|better|is|one)\W+)*
    (?P<choice>(?:[Aa]\s+)?(?:[Tt]ie|TIE)|A|B)
    \W*(?i:(?:is|wins|the|better|winner)\W*)*$""",
    re.VERBOSE,
)
"""A line that says nothing but which one: B, "Commentary A", "Verdict: tie.", "B is better"."""


def read_choice(reply: str) -> float:
    """1 for A, 0 for B, 0.5 for a tie. The last line decides, or the first where the last says something else.

    Raises:
        ValueError: neither line says nothing but the choice.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    for line in (*lines[-1:], *lines[:1]):
        found = _CHOICE.match(line)
        if found is not None:
            return {"A": 1.0, "B": 0.0}.get(found["choice"], 0.5)
    raise ValueError(f"the reply {reply[:40]!r} has no line that says only A, B or tie")
