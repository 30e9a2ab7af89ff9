"""Several continuations of one session as one session: twenty questions about a video are fed in one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from inference.engine import Stepping, StepRequest

T = TypeVar("T")


def together(children: Sequence[Stepping[T]]) -> Stepping[list[T]]:
    """Run children in lockstep inside of whoever runs this one: it yields a list of their requests.

    Returns:
        Their results, in their order.
    """
    results: dict[int, T] = {}
    wishes: dict[int, StepRequest] = {}

    def advance(number: int, answer: Any) -> None:
        try:
            wish = children[number].send(answer)
        except StopIteration as stop:
            results[number] = stop.value
            return
        assert isinstance(wish, StepRequest), "forks of forks are not supported"
        wishes[number] = wish

    for number in range(len(children)):
        advance(number, None)
    while wishes:
        numbers = list(wishes)
        answers = yield [wishes.pop(number) for number in numbers]
        for number, answer in zip(numbers, answers, strict=True):
            advance(number, answer)
    return [results[number] for number in range(len(children))]
