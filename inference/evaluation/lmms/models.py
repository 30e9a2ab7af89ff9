"""The classes that lmms-eval loads. They are made when it asks for them, so that everything imports without it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from inference.evaluation.lmms.chat import ChatAdapter
from inference.evaluation.lmms.simple import SimpleAdapter


def __getattr__(name: str) -> Any:
    """MossVideoSimple and MossVideoChat."""
    makers = {"MossVideoSimple": _simple, "MossVideoChat": _chat}
    if name not in makers:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return makers[name]()


def likelihood(total: float, greedy: bool) -> Any:
    """(total, greedy) in a form that lmms-eval 0.7.3 hands on as it is."""
    return _likelihood()(total, greedy)


@cache
def _simple() -> type:
    from lmms_eval.api.model import lmms

    class MossVideoSimple(SimpleAdapter, lmms):
        """For tasks of pictures and one text."""

    return MossVideoSimple


@cache
def _chat() -> type:
    from lmms_eval.api.model import lmms

    class MossVideoChat(ChatAdapter, lmms):
        """For tasks of messages."""

    return MossVideoChat


@cache
def _likelihood() -> Any:
    from lmms_eval.api.instance import GenerationResult

    class Likelihood(GenerationResult):
        """A pair. Of a plain tuple lmms-eval makes text."""

        def __init__(self, total: float, greedy: bool) -> None:
            super().__init__(_Pair((total, greedy)))

        def __iter__(self) -> Iterator[Any]:
            return iter(self.text)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, place: int) -> Any:
            return self.text[place]

    return Likelihood


class _Pair(tuple[float, bool]):
    def strip(self) -> str:
        """Nothing that lmms-eval's response cache could keep: what it gives back of a pair would become text."""
        return ""
