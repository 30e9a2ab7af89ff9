"""A backend that asks an endpoint of OpenAI's protocol."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.answers import Unreadable, is_refusal, read_answer
from data_pipeline.generator.backends.chat import ChatRequest, EndpointDown, MalformedAnswer, Refused
from data_pipeline.generator.backends.cost import Ledger, Usage, estimate_tokens
from data_pipeline.generator.backends.rate import RateLimit
from data_pipeline.generator.backends.settings import FORMATS, BackendConfig
from data_pipeline.generator.backends.wire import MOST_BYTES, Cut, Reply, digest, payload, read_body, repair_messages
from model.errors import InputError

AGAIN = (408, 409, 425, 429)
"""Statuses after which the same request may succeed, beside those from 500 on."""
UNSUPPORTED = (400, 404, 415, 422, 501)
"""Statuses by which an endpoint may say that it does not know a form of answer."""
CLOSED = (401, 403, 404)
"""Statuses after which no request will succeed."""


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
        self._client = openai.OpenAI(base_url=config.base_url, api_key=config.key(), max_retries=0, timeout=config.timeout)
        self._under_way = threading.BoundedSemaphore(config.concurrency)
        self._requests = RateLimit(config.requests_per_minute)
        self._tokens = RateLimit(config.tokens_per_minute)
        self._format = config.response_format
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
                    raise Refused(f"the model declines: {' '.join(text.split())[:200]}") from None
                fault = str(error)
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
        self.ledger.reserve(questions, most)
        try:
            with self._under_way:
                self._tokens.wait(questions + most)
                values, body = self._sent(request, more, most)
            try:
                reply = read_body(body)
            except Cut as cut:
                self._book(request.role, cut.reply, questions, most)
                raise
            except (Unreadable, Refused):
                self.ledger.book(request.role, questions, 0)
                raise
            self._book(request.role, reply, questions, len(reply.text) // 3 + 1)
            return values, reply
        finally:
            self.ledger.release(questions, most)

    def _book(self, role: str, reply: Reply, questions: int, answers: int) -> None:
        """Enter what the endpoint counted, or what was estimated where it does not say."""
        read = questions if reply.input_tokens is None else reply.input_tokens
        self.ledger.book(role, read, answers if reply.output_tokens is None else reply.output_tokens)

    def _sent(self, request: ChatRequest, more: list[dict[str, Any]], most: int) -> tuple[dict[str, Any], bytes]:
        """Send, in a form that the endpoint knows."""
        while True:
            form = self._format
            values = payload(request, form)
            body = {**values, "messages": values["messages"] + more, "model": self.config.model, "max_tokens": most}
            temperature = self.config.temperature
            body["temperature"] = request.temperature if temperature is None else temperature
            if self.config.send_seed:
                body["seed"] = (request.seed + self.config.seed) % 2**31
            try:
                return values, self._patiently(request.role, body)
            except _Rejected as error:
                known = FORMATS.index(form)
                if error.status in UNSUPPORTED and "response_format" in error.told and known + 1 < len(FORMATS):
                    self._format = FORMATS[max(known + 1, FORMATS.index(self._format))]
                elif error.status in CLOSED:
                    raise EndpointDown(
                        f"{self.config.base_url} answers {error.status}: {error.told}; mend model.* and start again"
                    ) from None
                else:
                    raise Refused(f"the endpoint rejects the request with status {error.status}: {error.told}") from None

    def _patiently(self, role: str, body: Mapping[str, Any]) -> bytes:
        """Send until an answer comes, with pauses that grow."""
        import openai

        told = ""
        for attempt in range(self.config.retries + 1):
            asked_for: float | None = None
            self._requests.wait()
            try:
                return self._once(body)
            except openai.APIStatusError as error:
                told = _told(error)
                if (error.status_code < 500 and error.status_code not in AGAIN) or error.status_code == 501:
                    raise _Rejected(error.status_code, told) from None
                told, asked_for = f"status {error.status_code}: {told}", _retry_after(error)
            except _TooLate:
                told = f"no complete answer within {self.config.timeout:g} s"
            except (openai.APIError, OSError, _transport_errors()) as error:
                told = f"{type(error).__name__}: {str(error)[:200]}"
            if attempt < self.config.retries:
                self.ledger.book_retry(role)
                self._pause(attempt, asked_for)
        raise EndpointDown(f"{self.config.base_url} gave no answer in {self.config.retries + 1} attempts; the last one: {told}")

    def _once(self, body: Mapping[str, Any]) -> bytes:
        """The body of one answer, read piece by piece so that neither its time nor its size is without bound."""
        end = time.monotonic() + self.config.timeout
        pieces, size = [], 0
        create = self._client.chat.completions.with_streaming_response.create
        with create(**body) as response:
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    break
                if time.monotonic() > end:
                    raise _TooLate
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


def _told(error: Any) -> str:
    """What the endpoint says of a failure, in a line."""
    try:
        text = error.response.text
        text = json.loads(text)["error"]["message"]
    except (KeyError, TypeError, ValueError, RecursionError, _transport_errors()):
        text = str(error)  # the body cannot be read, or says it in another form: the client has kept what it could
    return " ".join(str(text).split())[:300] or "no words"


def _retry_after(error: Any) -> float | None:
    """Seconds that the endpoint asks to wait."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _transport_errors() -> type[Exception]:
    """What breaks while a body is read, below the client."""
    import httpx

    return httpx.HTTPError
