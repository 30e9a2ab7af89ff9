"""What an author asks an endpoint, and how it may fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One question to a model, whose answer is JSON of a schema."""

    role: str
    """Which prompt it is, such as `plan`: for tallies of the cost."""
    system: str
    text: str
    images: tuple[bytes, ...] = ()
    """JPEG or PNG files."""
    schema: dict[str, Any]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


class BackendError(Exception):
    """A request that brought no usable answer; its message is one sentence for the user."""


class MalformedAnswer(BackendError):
    """The answer is no JSON of the schema, even when asked again."""


class Refused(BackendError):
    """The model declined to answer."""


class BudgetSpent(BackendError):
    """The next request could cost more than the budget holds."""


class EndpointDown(BackendError):
    """The endpoint does not answer, even when asked again."""


class EndpointClosed(EndpointDown):
    """The endpoint will not serve any request before somebody mends the key, the account, the address or the model."""


class ChatBackend(Protocol):
    """An endpoint; its methods may be called from several threads at once."""

    @property
    def identity(self) -> str:
        """Model and settings: part of the hash of all that it makes."""

    def complete(self, request: ChatRequest) -> dict[str, Any]:
        """The answer as parsed JSON.

        Raises:
            BackendError: see its subclasses.
        """
