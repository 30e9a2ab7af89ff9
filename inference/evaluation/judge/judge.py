"""What scorers need of a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class JudgeRequest(Generic[T]):
    """One thing to be judged."""

    messages: Sequence[dict[str, str]]
    """role and content, as OpenAI's protocol has them."""
    read: Callable[[str], T]
    """Takes the verdict out of the reply; raises ValueError with a sentence where there is none, and the judge is asked again."""
    what: str
    """Names it in messages: scenario and item."""


class Judge(Protocol):
    """Answers many requests, in their order.

    Attributes:
        name: of the model, as reports print it.
    """

    name: str

    def ask(self, requests: Sequence[JudgeRequest[Any]]) -> list[Any]:
        """The verdict of each request.

        Raises:
            InputError: the endpoint cannot be reached, or a request found no readable verdict in any attempt; what was
                judged so far is kept and need not be asked again.
        """
        ...
