"""One request to an endpoint of OpenAI's protocol, with nothing but the standard library."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from model.errors import InputError

MOST_BYTES = 4_000_000
"""Of an answer."""
_AGAIN = (408, 409, 425, 429)
_LONGEST_PAUSE = 30.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to whoever it names: it is a refusal like any other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a judge is asked, and how.

    Raises:
        InputError: a value out of range, or no address.
    """

    url: str
    """Base, such as http://localhost:8000/v1; `/chat/completions` is put behind it."""
    model: str
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; one that is not set sends none."""
    timeout: float = 120.0
    """Seconds of one request."""
    retries: int = 4
    """After failures that may pass."""
    pause: float = 1.0
    """Seconds before the first retry at the most; doubled each time."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).netloc:
            raise InputError(f"judge address {self.url!r} is none; give one such as http://localhost:8000/v1")
        if not self.model:
            raise InputError("the judge has no model; name one that the endpoint serves")
        if not self.timeout > 0 or self.retries < 0 or self.pause < 0:
            raise InputError("the judge's timeout must be above 0, its retries and pause 0 or more")

    def complete(self, messages: Sequence[dict[str, str]], **settings: Any) -> str:
        """The text of the reply.

        Raises:
            InputError: the endpoint refuses, cannot be reached in any attempt, or answers with something else.
        """
        body = json.dumps({"model": self.model, "messages": list(messages), **settings}).encode()
        told = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(random.uniform(0.5, 1.0) * self.pause * 2.0 ** (attempt - 1), _LONGEST_PAUSE))
            try:
                return self._read(self._post(body))
            except urllib.error.HTTPError as error:
                told = self._hidden(f"status {error.code}: {_words(error)}")
                if error.code < 500 and error.code not in _AGAIN:
                    raise InputError(f"the judge at {self.url} refuses: {told}; mend what it names and run again") from None
            except (OSError, http.client.HTTPException) as error:
                told = f"{type(error).__name__}: {error}"
        raise InputError(
            f"the judge at {self.url} gave no answer in {self.retries + 1} attempts (the last one: {told}); what was judged is "
            "kept, run again when it answers"
        )

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data=body, headers=headers, method="POST")
        ends = time.monotonic() + self.timeout
        content = b""
        with _OPENER.open(request, timeout=self.timeout) as answer:
            # A server that sends a byte now and then would otherwise be waited for without end.
            while len(content) <= MOST_BYTES and (part := answer.read1(1 << 16)):
                content += part
                if time.monotonic() > ends:
                    raise TimeoutError(f"the answer was not whole after {self.timeout:g} s")
        if len(content) > MOST_BYTES:
            raise InputError(
                f"the judge at {self.url} answers with more than {MOST_BYTES} bytes; is it an endpoint of OpenAI's protocol?"
            )
        return content

    def _read(self, content: bytes) -> str:
        try:
            choice = json.loads(content)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            start = self._hidden(content[:80].decode("utf-8", "replace"))
            raise InputError(f"the judge at {self.url} answers {start!r}; give an endpoint of OpenAI's protocol") from None
        # A reply that was cut may lack its verdict, or hold half a number.
        return text if isinstance(text, str) and choice.get("finish_reason") != "length" else ""

    def _hidden(self, text: str) -> str:
        """Without the key, which an endpoint may repeat."""
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        return text.replace(key, f"[{self.key_env}]") if key else text


def _words(error: urllib.error.HTTPError) -> str:
    """What the endpoint says of a failure, in one line."""
    text = error.read(2000).decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())[:300] or "no words"
