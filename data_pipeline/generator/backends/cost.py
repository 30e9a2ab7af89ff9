"""What asking costs: estimates before a request, sums behind it, and the budget that stops it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from data_pipeline.generator.backends.chat import BudgetSpent, ChatRequest
from data_pipeline.generator.backends.settings import BackendConfig

LETTERS_PER_TOKEN = 3.5
"""Of English; tokenizers of common models have 3.5 to 4.5, so this rather says too many tokens."""
_MILLION = 1e6
SPARE = 4
"""Reservations that must fit into what is left for requests to go side by side."""


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


@dataclass(eq=False)
class Reservation:
    """What is set aside for a request under way."""

    role: str
    estimates: tuple[int, int]
    """Tokens of question and answer, as estimated."""
    tokens: tuple[int, int]
    """The same, by what the endpoint has counted for other requests of the role."""


class Ledger:
    """Sums of a backend; its methods may be called from several threads.

    A request reserves the most that it may cost before it is sent: its estimate, times the largest ratio of counted to
    estimated tokens that its role has shown so far. With a budget, a role's first request goes alone, since nothing is known
    of its ratio yet, and all go one by one once less than `SPARE` times a request's reservation is left. So the budget is
    exceeded by one request at most while the ratio of a role does not rise, and then by what that one request costs more
    than it reserved. The budget is of one process: a build that asks from several ones gives each its share.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._lock = threading.Condition()
        self._usage = Usage()
        self._under_way: list[Reservation] = []
        self._ratios: dict[str, tuple[float, float]] = {}

    def dollars(self, input_tokens: float, output_tokens: float) -> float:
        """Price of tokens."""
        prices = self._config.prices
        return (input_tokens * prices.get("input", 0.0) + output_tokens * prices.get("output", 0.0)) / _MILLION

    def reserve(self, role: str, input_tokens: int, output_tokens: int) -> Reservation:
        """Set aside what a request may cost; waits while requests under way might leave nothing for it.

        Raises:
            BudgetSpent: it could exceed the budget, whatever the requests under way cost.
        """
        with self._lock:
            while True:
                ratios = self._ratios.get(role, (1.0, 1.0))
                tokens = (math.ceil(input_tokens * ratios[0]), math.ceil(output_tokens * ratios[1]))
                reserved = Reservation(role, (input_tokens, output_tokens), tokens)
                if self._may_begin(reserved):
                    self._under_way.append(reserved)
                    return reserved
                self._lock.wait()

    def release(self, reserved: Reservation) -> None:
        """Give back what `reserve` set aside."""
        with self._lock:
            self._under_way.remove(reserved)
            self._lock.notify_all()

    def _may_begin(self, new: Reservation) -> bool:
        config = self._config
        if not config.budget_tokens and not config.budget_dollars:
            return True
        self._check(new)
        if not self._under_way:
            return True
        if new.role not in self._ratios and any(one.role == new.role for one in self._under_way):
            return False
        tokens = self._usage.input_tokens + self._usage.output_tokens + sum(sum(one.tokens) for one in self._under_way)
        dollars = self._usage.dollars + sum(self.dollars(*one.tokens) for one in self._under_way)
        enough = not config.budget_tokens or tokens + SPARE * sum(new.tokens) <= config.budget_tokens
        return enough and (not config.budget_dollars or dollars + SPARE * self.dollars(*new.tokens) <= config.budget_dollars)

    def _check(self, new: Reservation) -> None:
        """Raise BudgetSpent where a request could exceed what is left behind all that was answered."""
        config, usage = self._config, self._usage
        tokens = usage.input_tokens + usage.output_tokens + sum(new.tokens)
        if config.budget_tokens and tokens > config.budget_tokens:
            raise BudgetSpent(
                f"the next request could bring the tokens to {tokens:,}; model.budget_tokens is {config.budget_tokens:,.0f}"
            )
        total = usage.dollars + self.dollars(*new.tokens)
        if config.budget_dollars and total > config.budget_dollars:
            raise BudgetSpent(
                f"the next request could bring the cost to ${total:.4f}; model.budget_dollars is {config.budget_dollars:g}"
            )

    def book(self, reserved: Reservation, input_tokens: int | None, output_tokens: int) -> None:
        """Enter an answer, and learn how the endpoint's count relates to the estimate.

        Args:
            input_tokens: None where the endpoint does not count: what was reserved.
        """
        counted = (reserved.tokens[0] if input_tokens is None else input_tokens, output_tokens)
        with self._lock:
            known = self._ratios.get(reserved.role, (1.0, 1.0))
            seen = [one / max(1, estimate) for one, estimate in zip(counted, reserved.estimates, strict=True)]
            self._ratios[reserved.role] = (max(known[0], seen[0]), max(known[1], seen[1]))
        self._enter(reserved.role, *counted, calls=1)

    def book_lost(self, reserved: Reservation) -> None:
        """Enter an attempt that may have been paid for though no answer came of it: all that was reserved.

        Raises:
            BudgetSpent: nothing is left for another attempt.
        """
        self._enter(reserved.role, *reserved.tokens)
        with self._lock:
            self._check(reserved)

    def _enter(self, role: str, input_tokens: int, output_tokens: int, **more: float) -> None:
        dollars = self.dollars(input_tokens, output_tokens)
        self._add(role, input_tokens=input_tokens, output_tokens=output_tokens, dollars=dollars, **more)

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
