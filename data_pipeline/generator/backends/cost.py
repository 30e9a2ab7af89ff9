"""What asking costs: estimates before a request, sums behind it, and the budget that stops it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from data_pipeline.generator.backends.chat import BudgetSpent, ChatRequest
from data_pipeline.generator.backends.settings import BackendConfig

LETTERS_PER_TOKEN = 3.5
"""Of English; tokenizers of common models have 3.5 to 4.5, so this rather says too many tokens."""
_MILLION = 1e6


@dataclass
class Usage:
    """What was asked so far."""

    calls: int = 0
    """Requests that were answered, repairs included."""
    cached: int = 0
    """Requests that an earlier answer served."""
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    """0 without prices."""
    roles: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same by role of the request: calls, cached, input_tokens, output_tokens, dollars."""


def estimate_tokens(request: ChatRequest, image_tokens: int) -> int:
    """About how many tokens a question has."""
    letters = len(request.system) + len(request.text) + len(str(request.schema))
    wide = sum(ord(c) > 0x2E7F for c in request.text)  # of Chinese, a character is about a token
    return round((letters - wide) / LETTERS_PER_TOKEN + wide) + image_tokens * len(request.images) + 16


class Ledger:
    """Sums of a backend; its methods may be called from several threads.

    A request reserves the most that it may cost before it is sent, so that requests under way cannot exceed the budget
    together. The budget is of one process: a build that asks from several ones gives each its share.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._usage = Usage()
        self._reserved_tokens = 0
        self._reserved_dollars = 0.0

    def dollars(self, input_tokens: float, output_tokens: float) -> float:
        """Price of tokens."""
        prices = self._config.prices
        return (input_tokens * prices.get("input", 0.0) + output_tokens * prices.get("output", 0.0)) / _MILLION

    def reserve(self, input_tokens: int, output_tokens: int) -> None:
        """Set aside what a request may cost.

        Raises:
            BudgetSpent: it could exceed the budget.
        """
        config, dollars = self._config, self.dollars(input_tokens, output_tokens)
        with self._lock:
            usage = self._usage
            tokens = usage.input_tokens + usage.output_tokens + self._reserved_tokens + input_tokens + output_tokens
            if config.budget_tokens and tokens > config.budget_tokens:
                raise BudgetSpent(
                    f"the next request could bring the tokens to {tokens:,}; model.budget_tokens is {config.budget_tokens:,.0f}"
                )
            total = usage.dollars + self._reserved_dollars + dollars
            if config.budget_dollars and total > config.budget_dollars:
                raise BudgetSpent(
                    f"the next request could bring the cost to ${total:.4f}; model.budget_dollars is {config.budget_dollars:g}"
                )
            self._reserved_tokens += input_tokens + output_tokens
            self._reserved_dollars += dollars

    def release(self, input_tokens: int, output_tokens: int) -> None:
        """Give back what `reserve` set aside."""
        with self._lock:
            self._reserved_tokens -= input_tokens + output_tokens
            self._reserved_dollars -= self.dollars(input_tokens, output_tokens)

    def book(self, role: str, input_tokens: int, output_tokens: int) -> None:
        """Enter an answer."""
        self._add(
            role,
            calls=1,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            dollars=self.dollars(input_tokens, output_tokens),
        )

    def book_cached(self, role: str) -> None:
        """Enter a request that an earlier answer served."""
        self._add(role, cached=1)

    def book_retry(self, role: str) -> None:
        """Enter a request that had to be sent again."""
        self._add(role, retries=1)

    def usage(self) -> Usage:
        """A copy of the sums."""
        with self._lock:
            copy = Usage(**vars(self._usage))
            copy.roles = {role: dict(sums) for role, sums in self._usage.roles.items()}
            return copy

    def _add(self, role: str, **more: float) -> None:
        with self._lock:
            sums = self._usage.roles.setdefault(role, {})
            for name, value in more.items():
                setattr(self._usage, name, getattr(self._usage, name) + value)
                sums[name] = sums.get(name, 0) + value
