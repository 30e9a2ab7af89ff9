"""A backend that asks an endpoint of OpenAI's protocol."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.generator.backends.answers import Unreadable, is_refusal, read_answer
from data_pipeline.generator.backends.chat import (
    BackendError,
    ChatRequest,
    EndpointClosed,
    EndpointDown,
    MalformedAnswer,
    Refused,
)
from data_pipeline.generator.backends.cost import Ledger, Reservation, Usage, estimate_tokens
from data_pipeline.generator.backends.rate import RateLimit
from data_pipeline.generator.backends.settings import BackendConfig
from data_pipeline.generator.backends.style import Style
from data_pipeline.generator.backends.wire import MOST_BYTES, Cut, Reply, digest, one_line, payload, read_body, repair_messages
from model.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.generator.backends.deadline import Failure

AGAIN = (408, 409, 425, 429)
"""Statuses after which the same request may succeed, beside those from 500 on."""
CLOSED = (401, 402, 403, 404)
"""Statuses after which no request will succeed, beside those that name another address."""


class _TooLate(Exception):
    """The answer is not complete in time."""


class EndpointBackend:
    """Asks an endpoint; every request ends with an answer of its schema or with one of the errors of `chat`.

    Args:
        config: address, model and limits.

    Raises:
        InputError: the key is not set, or the package `openai` is not installed.
    """

    def __init__(self, config: BackendConfig) -> None:
        try:
            import openai
        except ImportError:
            raise InputError(
                "a model is asked through the package openai; install it with: pip install 'moss-train[generator]'"
            ) from None
        self.config = config
        self.ledger = Ledger(config)
        from data_pipeline.generator.backends.deadline import bounded_client

        self._key = config.key()
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=self._key,
            max_retries=0,
            timeout=config.timeout,
            http_client=bounded_client(config.timeout),
        )
        # The client loads this part when it is first used, which must not take the first request's time.
        self._completions = self._client.chat.completions
        self._under_way = threading.BoundedSemaphore(config.concurrency)
        self._requests = RateLimit(config.requests_per_minute)
        self._tokens = RateLimit(config.tokens_per_minute)
        self._style = Style(form=config.response_format, seed=config.send_seed)
        self._proved = False
        self._record_lock = threading.Lock()

    @property
    def identity(self) -> str:
        """Model and all settings that change what it answers."""
        config = self.config
        return f"{config.model} temperature={config.temperature} seed={config.seed} max_tokens={config.max_tokens}"

    def usage(self) -> Usage:
        """What was asked so far."""
        return self.ledger.usage()

    def complete(self, request: ChatRequest) -> dict[str, Any]:
        """The answer as parsed JSON that fits the schema; a malformed one is asked for once more, with what is wrong.

        Raises:
            MalformedAnswer, Refused, BudgetSpent, EndpointDown: see there.
        """
        try:
            return self._complete(request)
        except BackendError as error:
            # An endpoint may repeat what it was sent: the key must not come into logs, reports and lists of rejections.
            raise type(error)(self._line(str(error), 900)) from None

    def _line(self, text: str, most: int = 300) -> str:
        """A line without the key."""
        if self.config.api_key_env:
            text = text.replace(self._key, f"[{self.config.api_key_env}]")
        return one_line(text, most)

    def _complete(self, request: ChatRequest) -> dict[str, Any]:
        try:
            f"{request.system}{request.text}{json.dumps(request.schema, ensure_ascii=False)}".encode()
        except UnicodeEncodeError as error:
            raise Refused(f"the request {request.role} holds half a character ({error.reason}); mend the text") from None
        more: list[dict[str, Any]] = []
        fault = ""
        for _ in range(2):
            text = ""
            try:
                values, reply = self._asked(request, more)
                text = reply.text
                answer = read_answer(text, request.schema)
            except Unreadable as error:
                if is_refusal(text):
                    raise Refused(f"the model declines: {self._line(text, 200)}") from None
                fault = self._line(str(error))
                more = repair_messages(text, fault)
                continue
            self._store(request.role, values, answer)
            return answer
        raise MalformedAnswer(f"the answer to {request.role} is unusable, asked twice: {fault}")

    def _asked(self, request: ChatRequest, more: list[dict[str, Any]]) -> tuple[dict[str, Any], Reply]:
        """What was sent first (without a repair's messages), and the reply."""
        config = self.config
        questions = estimate_tokens(request, config.image_tokens) + sum(len(str(one)) // 4 for one in more)
        most = min(request.max_tokens, config.max_tokens or request.max_tokens)
        reserved = self.ledger.reserve(request.role, questions, most)
        try:
            with self._under_way:
                self._tokens.wait(questions + most)
                values, body = self._sent(request, more, most, reserved)
            try:
                reply = read_body(body)
            except Cut as cut:
                self._book(reserved, cut.reply, most)
                raise
            except (Unreadable, Refused):
                self.ledger.book(reserved, None, 0)
                raise
            self._book(reserved, reply, len(reply.text) // 3 + 1)
            return values, reply
        finally:
            self.ledger.release(reserved)

    def _book(self, reserved: Reservation, reply: Reply, answers: int) -> None:
        """Enter what the endpoint counted, or what was estimated where it does not say."""
        self.ledger.book(reserved, reply.input_tokens, answers if reply.output_tokens is None else reply.output_tokens)

    def _sent(
        self, request: ChatRequest, more: list[dict[str, Any]], most: int, reserved: Reservation
    ) -> tuple[dict[str, Any], bytes]:
        """Send, in a form that the endpoint knows; what it was is remembered once it has served."""
        temperature = request.temperature if self.config.temperature is None else self.config.temperature
        seed = (request.seed + self.config.seed) % 2**31
        style, first = self._style, None
        while True:
            values = payload(request, style.form)
            messages = values["messages"] + more
            body = {**values, "messages": messages, "model": self.config.model, **style.limits(most, temperature, seed)}
            try:
                answer = self._patiently(request.role, body, reserved)
            except _Rejected as error:
                first = first or error
                simpler = style.simpler(error.status, error.told, self._proved and style == self._style)
                if simpler is not None:
                    style = simpler
                    continue
                if first.status in CLOSED or first.status < 400:
                    raise EndpointClosed(
                        f"{self.config.base_url} answers {first.status}: {first.told}; mend what it names (key, account, "
                        "address or model) and start again"
                    ) from None
                raise Refused(f"the endpoint rejects the request with status {first.status}: {first.told}") from None
            self._style, self._proved = style, True
            return values, answer

    def _patiently(self, role: str, body: Mapping[str, Any], reserved: Reservation) -> bytes:
        """Send until an answer comes, with pauses that grow."""
        import openai

        from data_pipeline.generator.backends.deadline import Failure

        told = ""
        for attempt in range(self.config.retries + 1):
            asked_for: float | None = None
            self._requests.wait()
            try:
                return self._once(body)
            except Failure as error:
                told = self._line(_told(error))
                if (error.status < 500 and error.status not in AGAIN) or error.status == 501:
                    raise _Rejected(error.status, told) from None
                told, asked_for = f"status {error.status}: {told}", _retry_after(error)
            except _TooLate:
                told = f"no complete answer within {self.config.timeout:g} s"
                self.ledger.book_lost(reserved)  # it may have been made, and paid for, all the same
            except (openai.APIError, OSError, _transport_errors()) as error:
                told = f"{type(error).__name__}: {str(error)[:200]}"
            if attempt < self.config.retries:
                self.ledger.book_retry(role)
                self._pause(attempt, asked_for)
        raise EndpointDown(f"{self.config.base_url} gave no answer in {self.config.retries + 1} attempts; the last one: {told}")

    def _once(self, body: Mapping[str, Any]) -> bytes:
        """The body of one answer; neither its time nor its size is without bound."""
        import openai

        from data_pipeline.generator.backends.deadline import Failure, within

        end = time.monotonic() + self.config.timeout
        pieces, size = [], 0
        create = self._completions.with_streaming_response.create
        try:
            with within(self.config.timeout), create(**body) as response:
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if size > MOST_BYTES:
                        break
                    if time.monotonic() > end:
                        raise _TooLate
        except (openai.APIError, _transport_errors()) as error:
            if isinstance(error.__cause__, Failure):
                raise error.__cause__ from None
            if time.monotonic() >= end:
                raise _TooLate from None
            raise
        return b"".join(pieces)

    def _pause(self, attempt: int, asked_for: float | None) -> None:
        """A random share of a pause that doubles; at least what the endpoint asks for, and never longer than allowed."""
        config = self.config
        most = min(config.wait * 2.0**attempt, config.longest_wait)
        # Retries of many threads at the same moment would meet the same busy endpoint: chance spreads them.
        time.sleep(min(max(random.uniform(0, most), asked_for or 0.0), config.longest_wait))

    def _store(self, role: str, values: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        if not self.config.record:
            return
        line = json.dumps({"role": role, "digest": digest(values), "answer": answer}, ensure_ascii=False)
        with self._record_lock, Path(self.config.record).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class _Rejected(Exception):
    """A status by which the endpoint says that it will not answer this request."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status, self.told = status, told


def _told(failure: Failure) -> str:
    """What the endpoint says of a failure."""
    if 300 <= failure.status < 400:
        return f"it has moved to {failure.headers.get('location', 'another address')}"
    try:
        text = json.loads(failure.body)["error"]["message"]
    except (KeyError, TypeError, ValueError, RecursionError):
        text = failure.body.decode("utf-8", "replace")
    return str(text).strip() or "no words"


def _retry_after(failure: Failure) -> float | None:
    """Seconds that the endpoint asks to wait."""
    try:
        seconds = float(failure.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _transport_errors() -> type[Exception]:
    """What breaks while a body is read, below the client."""
    import httpx

    return httpx.HTTPError
